//! A well-behaved session beside the hostile ones, whose every answer is checked.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use adjoin_tests::server::TestServer;

/// Runs the model `add` in a session and thread of its own until it is asked to stop.
pub(crate) struct Neighbour {
    stop: Arc<AtomicBool>,
    answers: Arc<AtomicU64>,
    thread: JoinHandle<()>,
}

impl Neighbour {
    pub(crate) fn start(server: &TestServer) -> Self {
        let client = server.client();
        let (stop, answers) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU64::new(0)),
        );
        let (stopped, counted) = (Arc::clone(&stop), Arc::clone(&answers));
        let thread = std::thread::spawn(move || {
            let model = client.model("add").unwrap();
            let mut request = adjoin_tests::add_request(&model, 8);
            let mut turn = 0u16;
            while !stopped.load(Ordering::Relaxed) {
                turn = (turn + 1) % 1000;
                request.input_mut::<f32>("a").unwrap().fill(f32::from(turn));
                request.input_mut::<f32>("b").unwrap().fill(0.5);
                let outputs = request
                    .infer()
                    .expect("the neighbour of a hostile client loses nothing");
                let expected = f32::from(turn) + 0.5;
                assert!(
                    outputs
                        .get::<f32>("sum")
                        .unwrap()
                        .iter()
                        .all(|sum| sum.to_bits() == expected.to_bits())
                );
                counted.fetch_add(1, Ordering::Relaxed);
            }
        });
        Self {
            stop,
            answers,
            thread,
        }
    }

    /// Waits for further answers, stops, and passes on what went wrong.
    pub(crate) fn finish(self) {
        let before = self.answers.load(Ordering::Relaxed);
        adjoin_tests::wait_for("the neighbour gets answers", || {
            (self.answers.load(Ordering::Relaxed) > before + 10 || self.thread.is_finished())
                .then_some(())
        });
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the neighbour was disturbed");
    }
}
