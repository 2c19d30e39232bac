//! Other systems' words live only here: one folder each.
