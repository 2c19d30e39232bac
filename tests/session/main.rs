//! The session room from outside: the life-cycle, the table, its documents and its cost.

mod cost;
mod documents;
mod life_cycle;
mod support;
mod table;
mod table_model;
