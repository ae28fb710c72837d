//! The hooks, as the kubelet, a person and the platform trigger them.

mod support;

use support::{MAIN, Place};

#[test]
fn a_whole_life() {
    let place = Place::with("[[post-start.step]]\nfile = { touch = \"@/started\" }\n");
    let mut agent = place.run(&MAIN);
    agent.wait_file("life", "main");
    let answer = agent.kubelet().call("/started").expect("an answer");
    assert_eq!(answer.status, 200);
    agent.signal(libc::SIGTERM);
    assert_eq!(agent.end(), 0);
    assert_eq!(agent.place.read("life"), "main\nTERM\n");
}
