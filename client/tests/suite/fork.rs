//! A forked child has no session.
#![allow(unsafe_code, reason = "there is no safe way to fork")]

use adjoin_client::{ConnectError, InferError, RequestError, TensorError};

use crate::{Ground, fill, options, request, row};

/// Runs `child` in a forked process; whether it ended well.
fn in_child(child: impl FnOnce()) -> bool {
    // SAFETY: the child runs the closure and leaves by `_exit`. It allocates, which glibc allows there.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0);
    if pid == 0 {
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(child));
        // SAFETY: ends the child without running what belongs to the parent.
        unsafe { libc::_exit(i32::from(outcome.is_err())) };
    }
    let mut status = 0;
    // SAFETY: waits for the child that was just made; `status` is an integer of this frame.
    let waited = unsafe { libc::waitpid(pid, &raw mut status, 0) };
    assert_eq!(waited, pid);
    status == 0
}

#[test]
fn forked_child_is_told_so_and_may_connect_by_itself() {
    let ground = Ground::new();
    let server = ground.fake().serve();
    let client = ground.client();
    let model = client.model("double").unwrap();
    let mut idle = request(&model, 1);
    fill(&mut idle, 1.0);
    let response = {
        let mut request = request(&model, 1);
        fill(&mut request, 2.0);
        request.submit().unwrap().wait().unwrap()
    };
    let mut pending = request(&model, 1).submit().unwrap();
    assert!(pending.wait_for(std::time::Duration::from_secs(20)));
    let to_submit = request(&model, 1);
    let mut under_way = request(&model, 1).submit().unwrap();

    let is_well = in_child(move || {
        assert!(matches!(client.model("double"), Err(InferError::Forked)));
        assert!(matches!(idle.infer(), Err(InferError::Forked)));
        assert!(matches!(
            idle.input_mut::<f32>("x"),
            Err(TensorError::Forked)
        ));
        assert!(matches!(response.get::<f32>("y"), Err(TensorError::Forked)));
        let failed = to_submit.submit().unwrap_err();
        assert!(matches!(failed.error, InferError::Forked));
        under_way.cancel();
        assert!(under_way.is_done());
        let failed = under_way.wait().unwrap_err();
        assert!(matches!(failed.error, InferError::Forked) && failed.request.is_none());
        let built = model.request_batch(1).unwrap().build();
        let Err(RequestError::Session(error)) = built else {
            panic!("built in a child");
        };
        assert!(matches!(*error, InferError::Forked));
        assert_eq!(client.session_id(), 0);
        drop((idle, response, pending, failed, model, client));
    });
    assert!(is_well);
    // The closure moved its captures into the parent's copy of it as well, so all are gone here.
    server.join().unwrap();
}

#[test]
fn parent_goes_on_after_a_child_dropped_everything() {
    let ground = Ground::new();
    let server = ground.fake().serve();
    let client = ground.client();
    let mut request = request(&client.model("double").unwrap(), 1);
    fill(&mut request, 1.5);
    request.infer().unwrap();
    let parts = std::cell::Cell::new(Some((request, client)));
    assert!(in_child(|| drop(parts.take())));
    let (mut request, client) = parts.take().unwrap();
    let outputs = request.infer().unwrap();
    assert_eq!(outputs.get::<f32>("y").unwrap(), row(3.0));
    drop((request, client));
    server.join().unwrap();
}

#[test]
fn child_may_open_a_client_of_its_own() {
    let ground = Ground::new();
    let fake = ground.fake();
    let server = std::thread::spawn(move || {
        let mut mine = fake.accept();
        let mut childs = fake.accept();
        childs.run(&mut crate::fake::Peer::handle);
        mine.run(&mut crate::fake::Peer::handle);
    });
    let client = ground.client();
    let is_well = in_child(|| {
        let error = ConnectError::Forked;
        assert!(!error.to_string().is_empty());
        let own = ground.connect(options());
        let mut request = request(&own.model("double").unwrap(), 1);
        fill(&mut request, 4.0);
        let outputs = request.infer().unwrap();
        assert_eq!(outputs.get::<f32>("y").unwrap(), row(8.0));
    });
    assert!(is_well);
    drop(client);
    server.join().unwrap();
}
