//! No unwinder in the shipped binary. It aborts on a panic and carries no unwind tables and no symbols, so neither an
//! unwinding nor a backtrace could ever work; but the standard library, built for those who unwind, still refers to the
//! code for both, 200 KB of it. These stand in its place, and the linker leaves the rest out. A panic's own message and
//! place are printed as ever.

use std::ffi::{c_int, c_void};

/// `_URC_END_OF_STACK` of the Itanium C++ ABI's exception handling (level 1.2): there are no more frames.
const END_OF_STACK: c_int = 5;

/// Walks no frames.
// SAFETY: the name and the signature are those of the ABI. Nothing else in the binary defines it, because a library's
// object is only taken from its archive while a name is missing; the linker refuses two.
#[unsafe(no_mangle)]
extern "C" fn _Unwind_Backtrace(_each: *mut c_void, _argument: *mut c_void) -> c_int {
    END_OF_STACK
}

/// What only a landing pad or a personality routine calls, while an exception is on its way: there never is one.
macro_rules! never_called {
    ($($name:ident)+) => {
        $(
            // SAFETY: as above; it takes no argument that it reads and does not return.
            #[unsafe(no_mangle)]
            extern "C" fn $name() -> ! {
                std::process::abort()
            }
        )+
    };
}

never_called! {
    _Unwind_Resume
    _Unwind_GetDataRelBase
    _Unwind_GetIPInfo
    _Unwind_GetLanguageSpecificData
    _Unwind_GetRegionStart
    _Unwind_GetTextRelBase
    _Unwind_SetGR
    _Unwind_SetIP
}
