//! How this process's allocator keeps memory. A node's memory is for its pods.

/// Keeps glibc from making an arena for each of the threads that block in the kernel: with a hundred pods starting that
/// is what most of the server's memory would be. Call it before threads exist.
pub fn share_arenas() {
    // SAFETY: mallopt only sets a number inside the allocator, and no other thread is there to allocate meanwhile.
    let taken = unsafe { libc::mallopt(libc::M_ARENA_MAX, 2) };
    debug_assert_eq!(taken, 1, "glibc knows M_ARENA_MAX");
}

/// Gives free pages back to the kernel.
pub fn release_free_pages() {
    // SAFETY: malloc_trim is thread-safe and touches only what the allocator holds free.
    unsafe { libc::malloc_trim(0) };
}
