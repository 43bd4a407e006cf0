//! VMCLEAR semantics: VMCLEAR, VMPTRLD of another, VMXOFF and VMXON between every two steps of a guest's life.
#![no_std]
#![no_main]

use guest::vmx::instruction::{vmclear, vmptrld, vmptrst, vmread, vmxoff, vmxon};
use guest::vmx::prelude::*;
use guest::vmx::{Failure, Outcome, Random, attempt_with, instruction, region, verdict};
use guest::{Regs, snippet};

guest!(main);

const VMCSS: usize = 3;
const STEPS: u64 = 3000;

/// What may come between any two others.
#[derive(Clone, Copy, Debug)]
enum Step {
    Clear(usize),
    Load(usize),
    Launch,
    Resume,
    Store,
    Read,
    OffAndOn,
    ClearVmxonRegion,
}

/// What a processor knows of its VMCSs (SDM, "Software Use of Virtual-Machine Control Structures").
struct Model {
    vmxon_region: u64,
    regions: [u64; VMCSS],
    current: Option<usize>,
    is_launched: [bool; VMCSS],
}

fn main() {
    let vmxon_region = enter_operation();
    let regions = core::array::from_fn(|_| region());
    for page in regions {
        let mut nested = Guest::at(page, verdict::end);
        nested.write(vmcs::TSC_OFFSET, page);
        nested.clear();
    }
    let mut model = Model { vmxon_region, regions, current: None, is_launched: [false; VMCSS] };
    every_pair(&mut model);
    let mut random = Random::new(0x766d_636c);
    for _ in 0..STEPS {
        let kinds = steps(random.index(VMCSS));
        model.take(kinds[random.index(kinds.len())]);
    }
    leave_operation();
}

fn steps(number: usize) -> [Step; 8] {
    use Step as S;
    [
        S::Clear(number),
        S::Load(number),
        S::Launch,
        S::Resume,
        S::Store,
        S::Read,
        S::OffAndOn,
        S::ClearVmxonRegion,
    ]
}

/// From each point of a guest's life any two steps, then the rest of its life.
fn every_pair(model: &mut Model) {
    let life =
        [Step::Clear(0), Step::Load(0), Step::Launch, Step::Read, Step::Resume, Step::Store, Step::Clear(0)];
    for length in 0..life.len() {
        for first in steps(0).into_iter().chain([Step::Clear(1), Step::Load(1)]) {
            for second in steps(0).into_iter().chain([Step::Clear(1), Step::Load(1)]) {
                life[..length].iter().for_each(|&step| model.take(step));
                model.take(first);
                model.take(second);
                life[length..].iter().for_each(|&step| model.take(step));
            }
        }
    }
}

impl Model {
    fn take(&mut self, step: Step) {
        match step {
            Step::Clear(number) => {
                check_eq!(vmclear(self.regions[number]), Ok(()), "{step:?}");
                self.is_launched[number] = false;
                if self.current == Some(number) {
                    self.current = None;
                }
            }
            Step::Load(number) => {
                check_eq!(vmptrld(self.regions[number]), Ok(()), "{step:?}");
                self.current = Some(number);
            }
            Step::Launch => self.enter(true),
            Step::Resume => self.enter(false),
            Step::Store => check_current(vmptrst(), self.current.map(|number| self.regions[number])),
            Step::Read => {
                let expected = self.current.map_or(Err(Failure::Invalid), |number| Ok(self.regions[number]));
                check_eq!(vmread(vmcs::TSC_OFFSET.encoding().into()), expected, "{step:?}");
            }
            Step::OffAndOn => self.off_and_on(),
            Step::ClearVmxonRegion => {
                let expected = self.fail(3);
                check_eq!(vmclear(self.vmxon_region), Err(expected), "{step:?}");
            }
        }
    }

    fn fail(&self, error: u32) -> Failure {
        self.current.map_or(Failure::Invalid, |_| Failure::Valid(error))
    }

    /// VMLAUNCH or VMRESUME: the guest runs, or the launch state is wrong, or there is no VMCS.
    fn enter(&mut self, is_launch: bool) {
        let expected = match self.current {
            None => Some(Failure::Invalid),
            Some(number) if self.is_launched[number] == is_launch => {
                Some(Failure::Valid(if is_launch { 4 } else { 5 }))
            }
            Some(_) => None,
        };
        let Some(failure) = expected else { return self.run() };
        let code = if is_launch { snippet!("vmlaunch") } else { snippet!("vmresume") };
        check_eq!(attempt_with(code, Regs::default()), Outcome::Failed(failure), "launch {is_launch}");
    }

    fn run(&mut self) {
        let Some(number) = self.current else { return };
        let mut nested = Guest::current(self.regions[number], self.is_launched[number]);
        // Without its TSC offset, which is a mark here.
        nested.call(verdict::end);
        check_eq!(nested.try_entry(), verdict::Entry::Entered, "VMCS {number}");
        check_eq!(instruction::read(vmcs::EXIT_REASON), 18, "the exit of VMCS {number}");
        self.is_launched[number] = true;
    }

    /// The manual asks for VMCLEAR of all before VMXOFF; one may be current all the same.
    fn off_and_on(&mut self) {
        for number in 0..VMCSS {
            if self.current != Some(number) {
                self.take(Step::Clear(number));
            }
        }
        check_eq!(vmxoff(), Ok(()), "VMXOFF");
        check_eq!(vmxon(self.vmxon_region), Ok(()), "VMXON");
        check_eq!(vmptrst(), u64::MAX, "the current VMCS after VMXON");
        self.current = None;
        for number in 0..VMCSS {
            self.take(Step::Clear(number));
        }
    }
}

fn check_current(seen: u64, expected: Option<u64>) {
    check_eq!(seen, expected.unwrap_or(u64::MAX), "the current VMCS");
}
