//! A guest's processor as the rest of the hypervisor sees it, free of any vendor's words.

#[cfg(test)]
pub(crate) mod fake;

use x86::cr::{Cr0, Cr4, Efer, Rflags};
use x86::event::Event;
use x86::segment::{DescriptorTable, Segment, SegmentRegister};

/// The general-purpose registers, in the order of their instruction encoding.
///
/// The stack pointer lives elsewhere ([`RegisterState::rsp`]); its slot here is unused.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Registers(pub [u64; 16]);

macro_rules! registers {
    ($($get:ident $set:ident $index:expr;)*) => {
        impl Registers {
            $(
                #[doc = concat!("Register ", stringify!($get), ".")]
                #[must_use]
                pub const fn $get(&self) -> u64 { self.0[$index] }
                #[doc = concat!("Sets register ", stringify!($get), ".")]
                pub const fn $set(&mut self, value: u64) { self.0[$index] = value; }
            )*
        }
    };
}

registers! {
    rax set_rax 0;
    rcx set_rcx 1;
    rdx set_rdx 2;
    rbx set_rbx 3;
    rbp set_rbp 5;
    rsi set_rsi 6;
    rdi set_rdi 7;
    r8 set_r8 8;
}

impl Registers {
    /// ECX, as RDMSR, WRMSR and XSETBV use it.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "the upper half is ignored")]
    pub const fn ecx(&self) -> u32 {
        self.0[1] as u32
    }

    /// EDX:EAX as one number, as RDMSR, WRMSR and XSETBV use it.
    #[must_use]
    pub const fn edx_eax(&self) -> u64 {
        self.0[2] << 32 | self.0[0] & 0xffff_ffff
    }

    /// Sets EDX:EAX, clearing the upper halves, as RDMSR does.
    pub const fn set_edx_eax(&mut self, value: u64) {
        self.0[0] = value & 0xffff_ffff;
        self.0[2] = value >> 32;
    }
}

/// Operand and address size of the running code segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CodeSize {
    /// Real mode, virtual-8086 mode, or a 16-bit code segment.
    Bits16,
    /// A 32-bit code segment, compatibility mode included.
    Bits32,
    /// 64-bit mode.
    Bits64,
}

/// Whether a guest's processor executes instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activity {
    /// It does.
    Active,
    /// It waits for a start-up IPI, as after INIT.
    WaitForSipi,
}

/// Registers of a guest's processor that a program has, and its segments.
pub trait RegisterState {
    /// General-purpose registers but RSP.
    fn registers(&self) -> &Registers;
    /// General-purpose registers but RSP, to change.
    fn registers_mut(&mut self) -> &mut Registers;
    /// Instruction pointer, of the instruction that exited.
    fn rip(&self) -> u64;
    /// Sets the instruction pointer.
    fn set_rip(&mut self, rip: u64);
    /// Stack pointer.
    fn rsp(&self) -> u64;
    /// Sets the stack pointer.
    fn set_rsp(&mut self, rsp: u64);
    /// Flags.
    fn rflags(&self) -> Rflags;
    /// Sets the flags.
    fn set_rflags(&mut self, rflags: Rflags);
    /// Current privilege level.
    fn cpl(&self) -> u8;
    /// Returns a segment register.
    fn segment(&self, register: SegmentRegister) -> Segment;
    /// Loads a segment register, hidden part included.
    fn set_segment(&mut self, register: SegmentRegister, segment: Segment);
    /// IDTR.
    fn idtr(&self) -> DescriptorTable;
    /// Sets IDTR.
    fn set_idtr(&mut self, idtr: DescriptorTable);
    /// GDTR.
    fn gdtr(&self) -> DescriptorTable;
    /// Sets GDTR.
    fn set_gdtr(&mut self, gdtr: DescriptorTable);
    /// Access rights of CS.
    fn code_rights(&self) -> x86::segment::AccessRights {
        self.segment(SegmentRegister::Cs).rights
    }
}

/// What decides how a guest's processor translates addresses. CR0 and CR4 are as the guest sees them, host-owned bits
/// included.
pub trait PagingState {
    /// CR0 as the guest reads it.
    fn cr0(&self) -> Cr0;
    /// Sets CR0 as the guest reads it; paging-mode changes take effect as MOV to CR0 would make them.
    fn set_cr0(&mut self, cr0: Cr0);
    /// Returns the bits of CR0 and CR4 that the processor does not let the guest clear.
    fn fixed_bits(&self) -> (Cr0, Cr4) {
        (Cr0::empty(), Cr4::empty())
    }
    /// CR3.
    fn cr3(&self) -> u64;
    /// Sets CR3. Cached translations stay: see [`PagingState::invalidate_translations`].
    fn set_cr3(&mut self, cr3: u64);
    /// CR4 as the guest reads it.
    fn cr4(&self) -> Cr4;
    /// Sets CR4 as the guest reads it.
    fn set_cr4(&mut self, cr4: Cr4);
    /// IA32_EFER.
    fn efer(&self) -> Efer;
    /// Sets IA32_EFER; LMA decides whether the guest goes on in IA-32e mode.
    fn set_efer(&mut self, efer: Efer);
    /// Returns the four PDPTE registers that PAE paging uses.
    fn pdptes(&self) -> [u64; 4];
    /// Sets the PDPTE registers.
    fn set_pdptes(&mut self, pdptes: [u64; 4]);
    /// Drops this processor's cached translations of the guest's linear addresses, global ones too.
    fn invalidate_translations(&mut self);
    /// PKRU, where CR4.PKE is set.
    fn pkru(&self) -> u32;
    /// IA32_PKRS, where CR4.PKS is set.
    fn pkrs(&self) -> u32;
}

/// What a guest's processor takes next: events, breakpoints, traps, and the instruction behind the one that exited.
pub trait EventState {
    /// DR7.
    fn dr7(&self) -> u64;
    /// Sets DR7.
    fn set_dr7(&mut self, dr7: u64);
    /// DR0 to DR3.
    fn breakpoint_addresses(&self) -> [u64; 4];
    /// RFLAGS.TF has the processor trap behind each instruction and each iteration of a repeated one.
    fn is_single_stepped(&self) -> bool;
    /// Notes breakpoints that struck, as bits 0 to 3 of DR6 have them: the guest takes the debug exception
    /// behind the instruction, or the iteration, that is carried out.
    fn strike_breakpoints(&mut self, breakpoints: u64);
    /// Sets CR2 and DR0 to DR7 to their values after INIT, with no debug exception pending.
    fn reset_cr2_and_debug_registers(&mut self);
    /// Sets bits of DR6, which explain a #DB that the guest is to take.
    fn set_dr6_bits(&mut self, bits: u64);
    /// Requires a branch target as the next instruction, where indirect branches are tracked at the present CPL.
    fn expect_branch_target(&mut self);
    /// Ends a near call of ring 3's that was carried out in the called code's stead: no branch target is expected any
    /// more, and the return address, of so many bytes, is off the shadow stack.
    fn end_user_call(&mut self, bytes: u64);
    /// Sets whether the processor runs, or waits for a start-up IPI.
    fn set_activity(&mut self, activity: Activity);
    /// Ends blocking by STI and by MOV SS.
    fn clear_interrupt_shadow(&mut self);
    /// Begins or ends blocking by NMI.
    fn set_nmi_blocking(&mut self, is_blocking: bool);
    /// Says that the event whose delivery led to the exit has been delivered: it is not delivered again.
    fn finish_delivery(&mut self);
    /// Length in bytes of the instruction that exited.
    fn instruction_length(&self) -> u64;
    /// Returns whether the exit happened while an event was being delivered.
    fn is_delivering_event(&self) -> bool;
    /// Steps past the instruction that exited: RIP, RFLAGS.RF, blocking by STI and MOV SS, single-step trap.
    fn advance(&mut self) {
        self.advance_by(self.instruction_length());
    }
    /// As [`EventState::advance`], past an instruction of so many bytes.
    fn advance_by(&mut self, length: u64);
    /// Ends an iteration, not the last, of the repeated instruction that exited: as [`EventState::advance`], but
    /// RIP stays, and RFLAGS.RF says that the instruction has begun.
    fn iterate(&mut self);
    /// Injects `event` at the next VM entry.
    fn inject(&mut self, event: Event);
}

/// A guest's processor between a VM exit and the next VM entry. Object-safe, for hypapps.
pub trait Vcpu: RegisterState + PagingState + EventState {
    /// Index of this CPU, 0 for the bootstrap processor.
    fn index(&self) -> usize;
    /// Operand and address size of the running code.
    fn code_size(&self) -> CodeSize {
        let cs = self.code_rights();
        let long = self.efer().contains(Efer::LMA);
        if long && cs.contains(x86::segment::AccessRights::L) {
            CodeSize::Bits64
        } else if self.cr0().contains(Cr0::PE) && cs.contains(x86::segment::AccessRights::DB) {
            CodeSize::Bits32
        } else {
            CodeSize::Bits16
        }
    }
}
