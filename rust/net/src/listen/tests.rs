use std::cell::Cell;
use std::collections::HashSet;
use std::io::{self, ErrorKind, Read};
use std::net::{Shutdown, TcpStream as StdStream};

use socket2::SockRef;

use super::*;

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_all().build().expect("a runtime");
    let deadline = Duration::from_secs(20);
    runtime
        .block_on(async { tokio::time::timeout(deadline, future).await })
        .expect("done before the deadline")
}

fn waiting_connections(listener: &TcpListener) -> Vec<StdStream> {
    std::iter::from_fn(|| match listener.accept() {
        Ok((stream, _)) => Some(stream),
        Err(error) if error.kind() == ErrorKind::WouldBlock => None,
        Err(error) => panic!("{error}"),
    })
    .collect()
}

#[test]
fn connections_spread_over_all_listeners_of_a_group() {
    let group = bind_group("127.0.0.1:0", 4, "listen").unwrap();
    let address = group[0].local_addr().unwrap();
    let clients: Vec<_> = (0..400).map(|_| StdStream::connect(address).unwrap()).collect();
    let accepted: Vec<_> =
        group.iter().map(|listener| waiting_connections(listener).len()).collect();
    assert_eq!(accepted.iter().sum::<usize>(), clients.len());
    assert!(accepted.iter().all(|&count| count > 20), "{accepted:?}");
}

#[test]
fn a_second_group_on_the_same_port_is_refused() {
    let group = bind_group("127.0.0.1:0", 2, "listen").unwrap();
    let address = group[0].local_addr().unwrap().to_string();
    let error = bind_group(&address, 2, "listen").expect_err("the port is taken");
    let expected = format!("listen: cannot listen on {address}: address already in use (");
    assert!(error.to_string().starts_with(&expected), "{error}");
    let port = group[0].local_addr().unwrap().port();
    bind_one(&format!("0.0.0.0:{port}"), "listen").expect_err("a wildcard overlaps with it");
    bind_one(&address, "listen").expect_err("a single listener is refused too");
}

#[test]
fn of_two_groups_that_start_together_exactly_one_gets_the_port() {
    for _ in 0..50 {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let start = std::sync::Barrier::new(2);
        let bind = || {
            start.wait();
            bind_group(&free, 2, "listen")
        };
        let outcomes = std::thread::scope(|scope| {
            let (one, two) = (scope.spawn(bind), scope.spawn(bind));
            [one.join().unwrap(), two.join().unwrap()]
        });
        let winners = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
        assert_eq!(winners, 1, "{outcomes:?}");
    }
}

#[test]
fn a_port_that_a_plain_listener_holds_is_refused() {
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = other.local_addr().unwrap().to_string();
    bind_group(&address, 2, "listen").expect_err("the port is taken");
}

#[test]
fn a_restart_right_after_use_gets_the_port_again() {
    let group = bind_group("127.0.0.1:0", 2, "listen").unwrap();
    let address = group[0].local_addr().unwrap();
    let mut client = StdStream::connect(address).unwrap();
    let accepted: Vec<_> = group.iter().flat_map(waiting_connections).collect();
    assert_eq!(accepted.len(), 1);
    // The server closes first, so its side of the connection stays in TIME_WAIT.
    drop(accepted);
    drop(group);
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
    drop(client);
    let again = bind_group(&address.to_string(), 2, "listen").unwrap();
    assert_eq!(again[1].local_addr().unwrap(), address);
}

#[test]
fn port_zero_gives_one_port_to_the_whole_group() {
    let group = bind_group("127.0.0.1:0", 3, "listen").unwrap();
    let ports: HashSet<_> = group.iter().map(|one| one.local_addr().unwrap().port()).collect();
    assert_eq!(ports.len(), 1);
    assert!(!ports.contains(&0));
}

#[test]
fn ipv6_any_takes_ipv4_too() {
    let listener = bind_one("[::]:0", "listen").unwrap();
    let port = listener.local_addr().unwrap().port();
    StdStream::connect(("127.0.0.1", port)).expect("reached over IPv4");
}

#[test]
fn an_address_that_cannot_be_used_is_explained() {
    let message = |address| bind_one(address, "channel_listen").expect_err("refused").to_string();
    assert_eq!(
        message("localhost"),
        "channel_listen: \"localhost\" is not an IP address with a port, such as 0.0.0.0:443 or \
         [::]:443"
    );
    assert!(message("192.0.2.1:0").ends_with("this machine does not have that address"));
}

#[test]
fn accepted_connections_send_at_once() {
    block_on(async {
        let listener = bind_one("127.0.0.1:0", "listen").unwrap();
        let address = listener.local_addr().unwrap();
        let counters = Arc::new(AcceptCounters::default());
        let acceptor = Acceptor::new(listener, Arc::clone(&counters)).unwrap();
        let client = TcpStream::connect(address).await.unwrap();
        let (accepted, peer) = acceptor.accept().await.unwrap();
        assert_eq!(peer, client.local_addr().unwrap());
        assert!(accepted.nodelay().unwrap());
        assert_eq!((counters.accepted(), counters.failed()), (1, 0));
    });
}

#[test]
fn accepting_goes_on_after_the_process_ran_out_of_descriptors() {
    const EMFILE: i32 = 24;
    let attempts = Cell::new(0);
    let counters = AcceptCounters::default();
    let accepted = block_on(accept_from(&counters, async || {
        attempts.set(attempts.get() + 1);
        match attempts.get() {
            1 | 2 => Err(io::Error::from_raw_os_error(EMFILE)),
            3 => Err(ErrorKind::ConnectionAborted.into()),
            _ => Ok("connection"),
        }
    }));
    assert_eq!(accepted.unwrap(), "connection");
    assert_eq!((counters.accepted(), counters.failed()), (1, 3));
}

#[test]
fn a_listener_that_was_shut_down_is_reported_lost() {
    block_on(async {
        let listener = bind_one("127.0.0.1:0", "listen").unwrap();
        let copy = listener.try_clone().unwrap();
        let acceptor = Acceptor::new(listener, Arc::default()).unwrap();
        SockRef::from(&copy).shutdown(Shutdown::Read).unwrap();
        let error = acceptor.accept().await.expect_err("the listener is gone");
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    });
}
