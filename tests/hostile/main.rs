//! Clients that lie: raw programs that write whatever bytes they like where a client may write. Each ends its own
//! session at worst; a neighbour's answers are checked bit for bit meanwhile.

mod attach;
mod descriptors;
mod memory;
mod neighbour;
mod rings;
