//! VM exits of L2: whose each is ([`route`]), those of the hypervisor (`by_l0`), and those that L1 gets ([`reflect`],
//! `to_l1`).

pub(super) mod by_l0;
pub(super) mod dispatch;
pub(super) mod prediction_barrier;
pub(super) mod reflect;
pub(super) mod route;
pub(super) mod to_l1;
