//! Every built-in kind, one file each: defaults, validation, columns, and the table RESOURCES.
