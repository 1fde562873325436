//! Queue, snapshot, plugins, bind.
