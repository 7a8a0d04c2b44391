//! What the driver does, apart from the form in which it is called.
//!
//! | module | plays |
//! |---|---|
//! | `settings` | what the environment asks for: devices, memory, delays, failures |
//! | `state` | the process's one driver: contexts, handles, counts |
//! | `device_memory` | memory that faults when the host touches it |
//! | `host_memory` | which ranges of the host are pinned, and what is under way over them |
//! | `work`, `stream` | operations, and the threads that do them in order |
//! | `kernels` | the kernels of adjoin, as Rust functions |
//! | `sharing` | memory handed to other processes |

pub(crate) mod device_memory;
pub(crate) mod host_memory;
pub(crate) mod kernels;
pub(crate) mod settings;
pub(crate) mod sharing;
pub(crate) mod state;
pub(crate) mod status;
pub(crate) mod stream;
pub(crate) mod work;
