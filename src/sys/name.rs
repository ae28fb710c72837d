//! The name of a thread, for the shipped binary. The standard library gives each thread its name through musl, which
//! prints a path for the case of another thread: `printf` with all its floating point, 10 kB that nothing else needs.

use std::ffi::{c_char, c_int, c_ulong};

/// Names the calling thread, the only one that the standard library ever names.
// SAFETY: the name and the signature are those of musl's `pthread_setname_np` (a `pthread_t` is a pointer there).
// Nothing else in the binary defines it, because a library's object is only taken from its archive while a name is
// missing; the linker refuses two.
#[unsafe(no_mangle)]
extern "C" fn pthread_setname_np(_thread: c_ulong, name: *const c_char) -> c_int {
    // SAFETY: the caller gives a C string; the kernel reads at most 16 bytes of it (prctl(2)).
    match unsafe { libc::prctl(libc::PR_SET_NAME, name) } {
        0 => 0,
        _ => libc::EINVAL,
    }
}
