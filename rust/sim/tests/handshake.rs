//! Every order of the small configuration.

use cmgmux_mux::Side;
use cmgmux_sim::handshake::{Size, check};

fn completes_in_every_order(opener: Side) {
    let report = check(Size::small(opener));
    eprintln!("{opener:?} opens: {report}");
    assert!(report.terminal > 1_000 && report.moves > 1_000, "{report}");
}

// R-RESUME-3, R-RESUME-4, R-RESUME-5, R-RESUME-6, R-RESUME-7, R-RESUME-8, R-RESUME-10, R-RESUME-11
#[test]
fn what_the_instance_says_arrives_once_in_every_order_of_losses_and_claims() {
    completes_in_every_order(Side::Instance);
}

// R-RESUME-3, R-RESUME-4, R-RESUME-5, R-RESUME-6, R-RESUME-7, R-RESUME-8, R-RESUME-10, R-RESUME-11
#[test]
fn what_the_connection_point_says_arrives_once_in_every_order_of_losses_and_claims() {
    completes_in_every_order(Side::ConnectionPoint);
}
