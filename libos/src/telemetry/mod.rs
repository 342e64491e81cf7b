//! Metrics, events, spans, and their export.
