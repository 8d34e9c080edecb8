//! A connection point and an instance over real TLS on loopback.

use std::time::Duration;

use bytes::Bytes;
use cmgmux_net::{
    Arrival, CloseCode, End, EndReason, HandshakeError, OpenError, StreamCode, StreamError,
    StreamKind,
};

use crate::world::{
    Pki, answer, arrival, check_echo, listener, pattern, read_all, run, with_channel,
};

#[test]
fn streams_carry_both_directions_at_once() {
    with_channel("both", |point, instance| async move {
        let echo = async {
            while let Some(incoming) = point.accept().await {
                let (mut send, mut recv) = (incoming.send, incoming.recv);
                tokio::task::spawn_local(async move {
                    while let Some(chunk) = recv.chunk().await.unwrap() {
                        send.write(chunk.data, chunk.end).await.unwrap();
                    }
                });
            }
        };
        let exchange = |seed: u8| {
            let instance = instance.clone();
            async move {
                check_echo(instance.try_open(StreamKind::Exchange).unwrap(), 3_000_000, seed).await;
            }
        };
        tokio::select! {
            () = echo => panic!("the channel ended"),
            _ = async { tokio::join!(exchange(1), exchange(2), exchange(3)) } => {}
        }
        drop(instance);
    });
}

#[test]
fn a_thousand_idle_streams_end_at_their_baseline() {
    with_channel("idle", |point, instance| async move {
        let mut held = Vec::new();
        for _ in 0..1_000 {
            let (mut send, recv) = instance.try_open(StreamKind::Exchange).unwrap();
            send.write(Bytes::from_static(b"poll"), End::Stream).await.unwrap();
            held.push((send, recv));
        }
        let mut taken = Vec::new();
        while taken.len() < held.len() {
            taken.push(point.accept().await.unwrap());
        }
        assert_eq!((instance.stats().streams, point.stats().handles), (1_000, 1_000));
        drop(held);
        for incoming in &mut taken {
            let error = std::future::poll_fn(|cx| incoming.send.poll_broken(cx)).await;
            assert_eq!(error, StreamError::Stopped(StreamCode::CANCELLED));
        }
        drop(taken);
        // A last stream comes behind everything that the others left to say.
        let (mut send, mut recv) = instance.try_open(StreamKind::Exchange).unwrap();
        send.send(Bytes::new(), End::Stream).unwrap();
        let mut last = point.accept().await.unwrap();
        last.send.send(Bytes::new(), End::Stream).unwrap();
        drop(last);
        while recv.chunk().await.unwrap().is_some() {}
        drop((send, recv));
        for end in [&point, &instance] {
            let stats = end.stats();
            assert_eq!((stats.streams, stats.handles, stats.queued_bytes), (0, 0, 0), "{stats:?}");
        }
    });
}

#[test]
fn a_sleeping_reader_holds_its_writer_and_nobody_else() {
    with_channel("sleeper", |point, instance| async move {
        let (mut asleep, _unread) = instance.try_open(StreamKind::Exchange).unwrap();
        let mut queued = 0;
        let filling = async {
            loop {
                asleep.write(pattern(8_192, 0), End::None).await.unwrap();
                queued += 8_192;
            }
        };
        let sleeper = async {
            let sleeper = point.accept().await.unwrap();
            let (mut send, mut recv) = instance.try_open(StreamKind::Exchange).unwrap();
            let mut awake = point.accept().await.unwrap();
            for round in 0..500 {
                send.write(pattern(8_192, 1), End::None).await.unwrap();
                let mut got = 0;
                while got < 8_192 {
                    got += awake.recv.chunk().await.unwrap().unwrap().data.len();
                }
                assert_eq!(got, 8_192, "round {round}");
            }
            drop((recv.chunk(), sleeper));
        };
        tokio::select! {
            () = filling => {}
            () = sleeper => {}
        }
        assert!(queued <= 36 * 1024 + 64 * 1024 + 2 * 8_192, "{queued} bytes were taken");
    });
}

#[test]
fn a_close_ends_every_stream_with_its_reason() {
    with_channel("close", |point, instance| async move {
        let (mut send, mut recv) = instance.try_open(StreamKind::Exchange).unwrap();
        send.send(Bytes::from_static(b"x"), End::None).unwrap();
        let mut incoming = point.accept().await.unwrap();
        incoming.recv.chunk().await.unwrap();
        point.close(CloseCode::INTERNAL, "planned by the test");
        let code = CloseCode::INTERNAL;
        let reason = EndReason::ClosedByPeer { code, text: "planned by the test".to_owned() };
        assert_eq!(instance.ended().await, reason);
        assert_eq!(recv.chunk().await, Err(StreamError::ChannelLost(reason.clone())));
        assert_eq!(send.ready().await, Err(StreamError::ChannelLost(reason)));
        assert_eq!(instance.try_open(StreamKind::Exchange).unwrap_err(), OpenError::Lost);
        assert!(matches!(incoming.recv.chunk().await, Err(StreamError::ChannelLost(_))));
        assert!(point.accept().await.is_none());
    });
}

#[test]
fn a_draining_channel_ends_once_its_streams_have() {
    with_channel("drain", |point, instance| async move {
        let (mut send, mut recv) = instance.try_open(StreamKind::Exchange).unwrap();
        send.send(Bytes::from_static(b"last"), End::Stream).unwrap();
        let mut incoming = point.accept().await.unwrap();
        point.drain(Duration::from_secs(3_600));
        incoming.send.send(Bytes::from_static(b"answer"), End::Stream).unwrap();
        assert_eq!(read_all(&mut incoming.recv).await.unwrap(), b"last");
        assert_eq!(read_all(&mut recv).await.unwrap(), b"answer");
        drop((incoming, send, recv));
        assert!(matches!(instance.ended().await, EndReason::ClosedByPeer { .. }));
        assert!(matches!(point.ended().await, EndReason::Closed { .. }));
    });
}

#[test]
fn whoever_waits_for_a_ticket_hears_at_both_ends_that_the_channel_drains() {
    with_channel("drains", |point, instance| async move {
        // With a stream, so that it does not end.
        let (mut send, _recv) = instance.try_open(StreamKind::Exchange).unwrap();
        send.send(Bytes::from_static(b"x"), End::None).unwrap();
        let _taken = point.accept().await.unwrap();
        let waiting = [instance.opens_possible(), point.opens_possible()];
        point.drain(Duration::from_secs(3_600));
        tokio::join!(instance.drains(), point.drains());
        for end in waiting {
            end.await;
        }
        for end in [&instance, &point] {
            assert_eq!(end.try_open(StreamKind::Exchange).unwrap_err(), OpenError::Draining);
        }
    });
}

// R-GOAWAY-6, R-GOAWAY-7
#[test]
fn a_stream_that_crosses_the_end_of_a_drained_channel_may_be_tried_elsewhere() {
    with_channel("crossing", |point, instance| async move {
        point.drain(Duration::from_secs(3_600));
        let (mut send, mut recv) = instance.try_open(StreamKind::Exchange).unwrap();
        send.send(Bytes::from_static(b"late"), End::None).unwrap();
        let reason = instance.ended().await;
        assert!(matches!(reason, EndReason::ClosedByPeer { code: CloseCode::SHUTDOWN, .. }));
        let error = recv.chunk().await.unwrap_err();
        assert!(error.is_unprocessed(), "{error}");
        let error = send.ready().await.unwrap_err();
        assert!(error.is_unprocessed(), "{error}");
        assert!(point.accept().await.is_none());
    });
}

#[test]
fn a_reset_and_a_stop_carry_their_codes() {
    with_channel("codes", |point, instance| async move {
        let (mut send, mut recv) = instance.try_open(StreamKind::Exchange).unwrap();
        send.send(Bytes::from_static(b"x"), End::None).unwrap();
        let incoming = point.accept().await.unwrap();
        incoming.send.reset(StreamCode(0x103));
        incoming.recv.stop(StreamCode(0x104));
        assert_eq!(recv.chunk().await, Err(StreamError::Reset(StreamCode(0x103))));
        let broken = std::future::poll_fn(|cx| send.poll_broken(cx)).await;
        assert_eq!(broken, StreamError::Stopped(StreamCode(0x104)));
    });
}

#[test]
fn a_reader_that_sleeps_while_memory_runs_out_is_told_so_and_the_others_go_on() {
    with_channel("asleep", |point, instance| async move {
        let piece = Bytes::from(vec![7; 30_000]);
        let mut held = Vec::new();
        // The receive budget of a channel is 64 MiB.
        for number in 0..3_000 {
            let (mut send, recv) = instance.try_open(StreamKind::Exchange).unwrap();
            send.send(piece.clone(), End::None).unwrap();
            held.push((send, recv, point.accept().await.unwrap()));
            if number % 3 == 0 {
                held[number].2.recv.chunk().await.unwrap();
            }
        }
        let (send, _, slow) = &mut held[1];
        let stopped = std::future::poll_fn(|cx| send.poll_broken(cx)).await;
        assert_eq!(stopped, StreamError::Stopped(StreamCode::SLOW_CONSUMER));
        assert_eq!(slow.recv.chunk().await, Err(StreamError::TooSlow));
        let unread = point.stats().unread_bytes;
        assert!((60 << 20..=64 << 20).contains(&unread), "{unread}");
        let (mut send, _recv, mut last) = held.pop().unwrap();
        send.send(Bytes::new(), End::Stream).unwrap();
        assert_eq!(read_all(&mut last.recv).await.unwrap(), piece);
        drop(held);
        drop(last);
        assert_eq!(point.stats().unread_bytes, 0);
    });
}

#[test]
fn a_certificate_of_a_strange_ca_is_refused_in_words_on_both_sides() {
    run(async {
        let pki = Pki::new("strange");
        let (listener, address) = listener();
        let (dialled, accepted) =
            tokio::join!(pki.dial(address, "impostor"), answer(&pki, &listener));
        let (dialled, accepted) = (dialled.unwrap_err(), accepted.unwrap_err());
        assert!(matches!(accepted, HandshakeError::Tls(_)), "{accepted:?}");
        assert!(accepted.to_string().contains("trust"), "{accepted}");
        assert!(dialled.to_string().contains("trust"), "{dialled}");
    });
}

#[test]
fn a_certificate_of_a_site_that_its_ca_may_not_vouch_for_is_refused_in_words() {
    run(async {
        let pki = Pki::new("abroad");
        let (listener, address) = listener();
        let (dialled, accepted) =
            tokio::join!(pki.dial(address, "abroad"), answer(&pki, &listener));
        let (dialled, accepted) = (dialled.unwrap_err(), accepted.unwrap_err());
        assert!(matches!(accepted, HandshakeError::NotVouched(_)), "{accepted:?}");
        let HandshakeError::Refused { code, text } = &dialled else { panic!("{dialled:?}") };
        assert_eq!(*code, CloseCode::NOT_VOUCHED);
        assert!(text.contains("PAR"), "{text}");
    });
}

#[test]
fn an_instance_that_refuses_a_hello_says_why() {
    run(async {
        let pki = Pki::new("refused");
        let (listener, address) = listener();
        let refusing = async {
            let Arrival::Hello(offer) = arrival(&pki, &listener).await.unwrap() else { panic!() };
            assert_eq!((offer.peer.site.as_str(), offer.peer.name.as_str()), ("NYC", "cp1"));
            offer.refuse(CloseCode::WRONG_INSTANCE, "this is instance 1").await;
        };
        let (dialled, ()) = tokio::join!(pki.dial(address, "point"), refusing);
        let HandshakeError::Refused { code, text } = dialled.unwrap_err() else { panic!() };
        assert_eq!((code, text.as_str()), (CloseCode::WRONG_INSTANCE, "this is instance 1"));
    });
}
