//! A revisioned key to bytes log behind one trait: range, txn, watch, compact.
