//! What a hypercall returns in EAX.

/// The result of a hypercall; 0 is success. 1 to 4 are as in the original's microTPM.
///
/// The name of each says what is wrong; whatever is refused has changed nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Status(pub u32);

macro_rules! statuses {
    ($($(#[$meta:meta])* $name:ident = $value:literal, $text:literal;)*) => {
        impl Status {
            $($(#[$meta])* pub const $name: Self = Self($value);)*

            /// Returns what happened, and what to do about it, in one sentence.
            #[must_use]
            pub const fn explanation(self) -> &'static str {
                match self.0 {
                    $($value => $text,)*
                    _ => "a status that this version does not know",
                }
            }
        }

        #[cfg(test)]
        const ALL: &[Status] = &[$(Status::$name),*];
    };
}

statuses! {
    /// Done.
    SUCCESS = 0, "done";
    /// An argument of a microTPM command makes no sense, or a sealed blob is not genuine.
    BAD_PARAMETER = 1, "an argument of the microTPM command is wrong, or the blob is not one that this machine sealed";
    /// There is no PCR of that index.
    PCR_OUT_OF_RANGE = 2, "PCRs have the indices 0 to 7";
    /// The random generator has no entropy.
    INSUFFICIENT_ENTROPY = 3, "the random generator could not be seeded";
    /// Any other error of the microTPM: the PCRs, or signer, product and version, are not those that the blob is bound to,
    /// or one of the two PALs is to be debugged and the other is not.
    OTHER = 4, "the microTPM refused: PCRs, signer or version are not those that the blob is bound to";
    /// No hypercall has this number.
    UNKNOWN_COMMAND = 16, "no hypercall has this number";
    /// The hypercall does not come from an ordinary process: CPL 3 with paging on.
    NOT_A_PROCESS = 18, "only a process may call: privilege level 3, with paging";
    /// The command is only for PALs.
    NOT_IN_PAL = 19, "the microTPM is a PAL's own: call it from inside one";
    /// The command is not for PALs.
    IN_PAL = 20, "a PAL cannot register, unregister or share";
    /// Memory that an argument names cannot be read, or written, by the caller.
    BAD_ADDRESS = 21, "an argument names memory that the caller cannot access; touch it first, and lock it";
    /// The section list has no section, or more than [`section::CAPACITY`](crate::section::CAPACITY).
    SECTION_COUNT = 22, "a PAL has 1 to 64 sections";
    /// A section has a type that is none.
    SECTION_TYPE = 23, "a section is code, data, parameters, stack or shared code";
    /// A section has no pages, or more than [`section::PAGES_LIMIT`](crate::section::PAGES_LIMIT) all together.
    SECTION_SIZE = 24, "a section has at least one page, all sections together at most 4096";
    /// A section does not start on a page, or leaves the part of the address space that programs have.
    SECTION_ADDRESS = 25, "a section starts on a page above the first, and ends inside the program's address space";
    /// Two sections of the list have a page in common.
    SECTION_OVERLAP = 26, "two sections have a page in common, by address or as aliases of the same memory";
    /// The sections lack code, or a stack, or the parameters' section where parameters need one, or there are two
    /// stacks or two parameter sections.
    SECTION_MISSING = 27, "a PAL has code, one stack, and one parameter section";
    /// A page of a section is not mapped for the process, or not with the rights that it needs: what becomes hidden has
    /// to be the process's own to write, code executable as well.
    SECTION_NOT_MAPPED = 28, "a page of a section is absent or lacks rights: all but shared code writable, code executable; touch and lock it";
    /// A page of a section belongs to a PAL already.
    PAGE_TAKEN = 29, "a page of a section belongs to another PAL";
    /// A page of a section is not ordinary memory: the hypervisor's, a device's, or none.
    PAGE_NOT_MEMORY = 30, "a page of a section is not ordinary memory";
    /// The entry address is not in a code section.
    ENTRY_NOT_CODE = 31, "the entry address is not in a code section of the list";
    /// The process has a PAL with this entry address.
    ALREADY_REGISTERED = 32, "the process has registered a PAL at this entry address; unregister it first";
    /// The parameter list has more than [`parameter::CAPACITY`](crate::parameter::CAPACITY) parameters.
    PARAMETER_COUNT = 33, "a PAL has at most 64 parameters";
    /// A parameter has a type that is none.
    PARAMETER_TYPE = 34, "a parameter is an integer or a pointer";
    /// The parameters' sizes add up to more than the parameter section, or the stack, holds.
    PARAMETER_SIZE = 35, "the parameters do not fit in the parameter section, or on the stack";
    /// The hypervisor has no memory left for one more PAL.
    OUT_OF_MEMORY = 36, "the hypervisor has no memory left; unregister what is not needed";
    /// The process has no PAL at this entry address.
    NOT_REGISTERED = 37, "the process has no PAL at this entry address";
    /// The PAL runs on another CPU.
    BUSY = 38, "the PAL runs; wait for its calls to return";
    /// The command is not there for callers of this word size or in this build.
    NOT_AVAILABLE = 39, "this build does not have the command";
    /// A sealed blob or an output needs more room than the buffer has; the length needed has been stored.
    NO_ROOM = 40, "the output buffer is too small; the length needed is stored";
    /// The blob was sealed by another PAL.
    FOREIGN_BLOB = 42, "another PAL sealed this, so its content is that one's choice; unseal it as such if that is meant";
    /// A flag of the registration is none.
    FLAGS = 43, "a registration has a flag that this version does not know";
    /// The PAL was registered without [`flags::ACCEPTS_SHARE`](crate::flags::ACCEPTS_SHARE).
    NO_SHARE = 44, "the PAL was registered as one that shares no pages";
    /// A page that is to be shared lies where a PAL's stack would overflow to.
    STACK_GUARD = 45, "a shared page lies right below the PAL's stack, which would overflow into it";
    /// Ring 0 does not let this process register PALs.
    NOT_ADMITTED = 46, "the operating system does not let this process register PALs";
    /// The address space has as many PALs, pages or regions as one may have.
    QUOTA = 47, "the process has as many PALs, or pages in them, as one may have; unregister what is not needed";
    /// There is no suspended call, or the PAL was registered without
    /// [`flags::ABORTABLE`](crate::flags::ABORTABLE).
    NOT_ABORTABLE = 48, "no call of the PAL is suspended, or it was registered as one whose calls are not given up";
    /// A signed header is none, or its flags or its stack are not those of the registration.
    SIGNED_HEADER = 49, "the signed header is none, or has another stack than the section list";
    /// The PAL's signature is not its signer's over what was registered.
    SIGNATURE = 50, "the PAL is not what its signer signed, so it has no microTPM; sign it anew";
    /// The PAL was registered without a signed header.
    NOT_SIGNED = 51, "the PAL was registered without a signed header";
    /// The PAL was registered without [`flags::DEBUG`](crate::flags::DEBUG).
    NOT_DEBUG = 52, "only a PAL that was registered to be debugged may print";
    /// The PAL faulted or was revoked.
    DEAD = 41, "the PAL faulted or was revoked before: unregister it and register it again";
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_status_has_a_number_and_a_sentence_of_its_own() {
        let numbers: BTreeSet<_> = ALL.iter().map(|status| status.0).collect();
        let sentences: BTreeSet<_> = ALL.iter().map(|status| status.explanation()).collect();
        assert_eq!((numbers.len(), sentences.len()), (ALL.len(), ALL.len()));
        assert_eq!(Status(0xffff).explanation(), "a status that this version does not know");
    }
}
