//! What a program without std has to bring itself: an entry, a heap, and an end for panics.

use crate::program::run;
use alloc::vec::Vec;
use core::alloc::{GlobalAlloc, Layout};
use core::ffi::{CStr, c_char, c_int, c_void};

#[expect(unsafe_code, reason = "the C library is linked by declaring a block of it")]
// SAFETY: nothing is declared; the attributes say what to link. The core library was compiled
// for unwinding, and its tables name functions of gcc_eh that are never called here.
#[link(name = "c")]
#[link(name = "gcc_eh", kind = "static", modifiers = "-bundle")]
unsafe extern "C" {}

struct Heap;

#[global_allocator]
static HEAP: Heap = Heap;

/// What malloc(3) aligns to on every 64-bit target; nothing in this program asks for more.
const ALIGNMENT: usize = 16;

#[expect(unsafe_code, reason = "a heap is unsafe by definition")]
// SAFETY: malloc, realloc and free keep the promises of a heap, and a layout of a greater alignment
// than theirs gets nothing.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if layout.align() > ALIGNMENT {
            return core::ptr::null_mut();
        }
        // SAFETY: any size may be asked for.
        unsafe { libc::malloc(layout.size()).cast() }
    }

    unsafe fn dealloc(&self, at: *mut u8, _: Layout) {
        // SAFETY: the caller got `at` from this heap and gives it back once.
        unsafe { libc::free(at.cast::<c_void>()) }
    }

    unsafe fn realloc(&self, at: *mut u8, _: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller got `at` from this heap; the alignment stays malloc's.
        unsafe { libc::realloc(at.cast::<c_void>(), size).cast() }
    }
}

/// There is nobody to tell: standard error may be the container's.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    super::exit(70)
}

/// The core library's tables name it; without unwinding nothing calls it.
#[expect(unsafe_code, reason = "the name must be exactly this one")]
// SAFETY: no other function of this name is linked.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}

#[expect(unsafe_code, reason = "the C library calls it by this name, with C's pointers")]
// SAFETY: no other function of this name is linked.
#[unsafe(no_mangle)]
extern "C" fn main(count: c_int, words: *const *const c_char) -> c_int {
    let count = usize::try_from(count).unwrap_or(0);
    let words: Vec<&[u8]> = (0..count)
        // SAFETY: the kernel gives `count` strings, each with a NUL at its end, for good.
        .map(|at| unsafe { CStr::from_ptr(*words.add(at)) }.to_bytes())
        .collect();
    run(&words)
}
