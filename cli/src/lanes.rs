//! Several calls under way at once on one thread.

use std::future::Future;

use tokio::runtime::Runtime;
use tokio::task::{JoinSet, LocalSet};

use crate::Failure;

/// Runs `count` lanes, each a loop of calls, until all have ended or one has failed.
pub(crate) fn run<L>(runtime: &Runtime, count: u32, lane: impl Fn() -> L) -> Result<(), Failure>
where
    L: Future<Output = Result<(), Failure>> + 'static,
{
    LocalSet::new().block_on(runtime, async {
        let mut lanes = JoinSet::new();
        for _ in 0..count {
            lanes.spawn_local(lane());
        }
        while let Some(ended) = lanes.join_next().await {
            ended??;
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;

    use super::*;

    #[test]
    fn all_lanes_run_and_a_failure_ends_them() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let count = Rc::new(Cell::new(0));
        let lane = || {
            let count = Rc::clone(&count);
            async move {
                count.set(count.get() + 1);
                tokio::task::yield_now().await;
                if count.get() > 3 {
                    Err("four".into())
                } else {
                    Ok(())
                }
            }
        };
        run(&runtime, 3, lane).unwrap();
        assert_eq!(count.get(), 3);
        assert_eq!(run(&runtime, 1, lane).unwrap_err().to_string(), "four");
    }
}
