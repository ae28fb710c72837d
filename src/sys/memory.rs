//! The pages of the program itself. The kernel maps sixteen of them for each one that is touched (fault-around,
//! `mm/memory.c`), so after a start nearly the whole file counts as resident, although hardly any of it is used while the
//! agent waits. Giving them back costs nothing that lasts: they stay in the page cache, and what is needed again is mapped
//! again in microseconds.

use std::{
    ffi::{c_int, c_void},
    sync::atomic::{AtomicBool, Ordering::Relaxed},
};

use rustix::mm::{Advice, madvise};

/// The page size on which mappings begin, at most (aarch64 kernels use up to 64 KiB); rounding inwards to it never
/// touches a neighbour.
const PAGE: usize = 64 * 1024;

/// Whether the pages are to be given back.
static REST: AtomicBool = AtomicBool::new(false);

/// Gives the program's pages back when the thread next waits: what runs until then would map some of them again.
pub fn rest_soon() {
    REST.store(true, Relaxed);
}

/// The thread is about to wait.
pub fn rest() {
    if REST.swap(false, Relaxed) {
        release_program();
    }
}

/// Gives back the pages of the program's code and constants. Only segments that can never have been written to: what was
/// written is ours alone and would be lost.
fn release_program() {
    // SAFETY: the callback has the signature of dl_iterate_phdr(3) and uses its argument only during the call.
    unsafe { libc::dl_iterate_phdr(Some(release_segments), std::ptr::null_mut()) };
}

/// The first object that the C library names is the program itself; a non-zero result ends the iteration.
unsafe extern "C" fn release_segments(info: *mut libc::dl_phdr_info, _size: usize, _data: *mut c_void) -> c_int {
    // SAFETY: dl_iterate_phdr passes a valid pointer to a description that lives during the call.
    let info = unsafe { &*info };
    for index in 0..usize::from(info.dlpi_phnum) {
        // SAFETY: `dlpi_phdr` points to `dlpi_phnum` headers.
        let header = unsafe { &*info.dlpi_phdr.add(index) };
        if header.p_type != libc::PT_LOAD || header.p_flags & libc::PF_W != 0 {
            continue;
        }
        #[expect(clippy::cast_possible_truncation, reason = "addresses have the machine's word size")]
        let (start, length) = ((info.dlpi_addr + header.p_vaddr) as usize, header.p_memsz as usize);
        let first = start.next_multiple_of(PAGE);
        let end = (start + length) / PAGE * PAGE;
        if end > first {
            // SAFETY: the range lies within one mapping of the program file that is private and never writable, so that
            // every page of it reads the same from the file again, also the ones that run right now.
            let _ = unsafe { madvise(first as *mut c_void, end - first, Advice::LinuxDontNeed) };
        }
    }
    1
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Only code that reads the same afterwards can go on here at all.
    #[test]
    fn the_program_goes_on_after_its_pages_are_gone() {
        let text = "a constant of the program".to_owned();
        for _ in 0..3 {
            release_program();
            assert_eq!(text, "a constant of the program");
        }
    }
}
