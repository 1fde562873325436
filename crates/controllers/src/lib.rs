//! One pure plan per controller, one table, one runner.
