//! From the loader's jump to the application's first task.
