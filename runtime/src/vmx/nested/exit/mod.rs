//! VM exits of L2: whose each is ([`route`]), those of the hypervisor (`by_l0`), and those that L1 gets ([`reflect`],
//! `to_l1`).

#[cfg(target_os = "none")]
pub(super) mod by_l0;
#[cfg(target_os = "none")]
pub(super) mod dispatch;
#[cfg_attr(not(any(test, target_os = "none")), expect(dead_code, reason = "raised on the machine"))]
pub(super) mod prediction_barrier;
pub(super) mod reflect;
pub(super) mod route;
#[cfg(target_os = "none")]
pub(super) mod to_l1;
