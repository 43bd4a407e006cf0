//! The PAL's side of its entry.

/// Makes a function the entry of the PAL that this program is.
///
/// Its parameters are integers, and references to memory that is copied in before the call and back behind it. It
/// and all that it calls run without the system, its libraries, and the FPU; statics keep their values from one call to
/// the next, hidden from everybody else. A panic ends the PAL.
///
/// ```ignore
/// #![no_std]
/// #![no_main]
///
/// xmhf_pal::entry! {
///     fn count(step: u32, total: &mut u64) -> usize {
///         *total += u64::from(step);
///         0
///     }
/// }
/// ```
#[macro_export]
macro_rules! entry {
    (fn $name:ident($($argument:ident: $type:ty),* $(,)?) -> usize $body:block) => {
        fn $name($($argument: $type),*) -> usize $body

        // UNSAFETY: no other function has the name, as there is one entry.
        #[allow(unsafe_code, reason = "the name that pal.ld looks for")]
        #[unsafe(no_mangle)]
        extern "C" fn pal_entry($($argument: $type),*) -> usize {
            $name($($argument),*)
        }

        // UNSAFETY: the section is no part of the program; who signs the PAL reads it from the file.
        #[allow(unsafe_code, reason = "the section that pal.ld sets aside")]
        const _: () = {
            const COUNT: usize = <[&str]>::len(&[$(stringify!($argument)),*]);
            #[used]
            #[unsafe(link_section = ".xmhf_parameters")]
            static PARAMETERS: [$crate::trustvisor::parameter::ParameterRecord; COUNT] =
                [$(<$type as $crate::Argument>::RECORD),*];
        };

        #[panic_handler]
        fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
            $crate::microtpm::give_up()
        }
    };
}
