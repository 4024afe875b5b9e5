use super::*;

/// What a sleeper costs, but for what it has in the layer and in the kernel. Who makes a connection larger makes ten
/// thousand of them larger: think twice, then move the bound.
#[test]
fn a_connection_is_small() {
    let future = size_of_output(drive);
    eprintln!("task {future}, connection {}, session {}", size_of::<Connection>(), size_of::<Session>());
    assert!(future <= 128, "the task of a connection has {future} bytes");
    assert!(size_of::<Connection>() <= 400, "a connection has {} bytes", size_of::<Connection>());
    assert!(size_of::<Session>() <= 200, "a session has {} bytes", size_of::<Session>());
    assert!(size_of::<Socket>() <= 128, "a socket has {} bytes", size_of::<Socket>());
}

fn size_of_output<A, B, C, D, F>(_: impl FnOnce(A, B, C, D) -> F) -> usize {
    size_of::<F>()
}
