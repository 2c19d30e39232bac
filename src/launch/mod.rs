//! Wires the rooms and runs them.
