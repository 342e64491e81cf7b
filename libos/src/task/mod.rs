//! Tasks, timers, one executor a core.
