//! The memory of a program that lives for a millisecond.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::UnsafeCell;
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Hands out one zero-cost stretch of .bss from bottom to top and takes back only what
/// lies topmost. What doesn't fit, in a foreground `run` that waits for days, goes to
/// the system's allocator.
///
/// musl's allocator maps and unmaps memory for each of its size classes: without it
/// `create`'s start-up takes 0.21 instead of 0.29 ms and 16 system calls less.
///
/// What is known of it lies before it: in the page that the first blocks are in, with what is before that.
#[repr(C, align(16))]
pub struct Arena<const SIZE: usize> {
    /// Bytes handed out.
    top: AtomicUsize,
    /// The most that `top` has ever been: what lies above is still zero, and not even there.
    high: AtomicUsize,
    memory: Memory<SIZE>,
}

#[repr(C, align(16))]
struct Memory<const SIZE: usize>(UnsafeCell<[u8; SIZE]>);

/// Of the memory. C and what was written for it (nix's buffers of control messages) expect malloc's alignment of
/// every block.
const ALIGN: usize = 16;

// SAFETY: `memory` is only reached through blocks that `reserve` gave to one owner each.
unsafe impl<const SIZE: usize> Sync for Arena<SIZE> {}

impl<const SIZE: usize> Arena<SIZE> {
    #[allow(clippy::new_without_default)] // const, for a static
    pub const fn new() -> Self {
        Arena {
            top: AtomicUsize::new(0),
            high: AtomicUsize::new(0),
            memory: Memory(UnsafeCell::new([0; SIZE])),
        }
    }

    fn base(&self) -> *mut u8 {
        self.memory.0.get().cast()
    }

    /// Where a block begins, counted from the base, if it is one of ours.
    fn offset(&self, block: *mut u8) -> Option<usize> {
        let offset = (block as usize).wrapping_sub(self.base() as usize);
        (offset < SIZE).then_some(offset)
    }

    /// Where a new block begins, and where what was ever used ends. Before a block is anybody's, `high` is above it.
    fn reserve(&self, layout: Layout) -> Option<(usize, usize)> {
        // A block of this size is rare, grows, and would leave a hole each time.
        if layout.size() > SIZE / 8 || layout.align() > ALIGN {
            return None;
        }
        let start = |top: usize| top.next_multiple_of(ALIGN);
        let end = |top: usize| Some(start(top) + layout.size()).filter(|end| *end <= SIZE);
        let top = self
            .top
            .fetch_update(Ordering::AcqRel, Ordering::Relaxed, end)
            .ok()?;
        let start = start(top);
        let used = self.high.fetch_max(start + layout.size(), Ordering::AcqRel);
        Some((start, used))
    }

    /// Moves the end of the topmost block; false if that one isn't the topmost.
    fn resize(&self, offset: usize, old: usize, new: usize) -> bool {
        if offset + new > SIZE {
            return false;
        }
        let moved = self.top.compare_exchange(
            offset + old,
            offset + new,
            Ordering::AcqRel,
            Ordering::Relaxed,
        );
        self.high.fetch_max(offset + new, Ordering::AcqRel);
        moved.is_ok()
    }
}

// SAFETY: a block lies within `memory` or comes from `System`, is aligned, and isn't
// given out twice: `top` only passes over it, and falls back only when it is freed.
// `offset` tells the two sources apart, so that each block returns to its own.
unsafe impl<const SIZE: usize> GlobalAlloc for Arena<SIZE> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match self.reserve(layout) {
            // SAFETY: `offset` is within `memory`.
            Some((offset, _)) => unsafe { self.base().add(offset) },
            // SAFETY: the caller's promise is the same as System's.
            None => unsafe { System.alloc(layout) },
        }
    }

    /// Only what was used before has to be cleared: a buffer of 64 KiB costs the pages that are written.
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let Some((offset, used)) = self.reserve(layout) else {
            // SAFETY: the caller's promise is the same as System's.
            return unsafe { System.alloc_zeroed(layout) };
        };
        // SAFETY: `offset` is within `memory`.
        let block = unsafe { self.base().add(offset) };
        let dirty = used.saturating_sub(offset).min(layout.size());
        // SAFETY: so much of the block is within it, and the block is nobody else's.
        unsafe { ptr::write_bytes(block, 0, dirty) };
        block
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        match self.offset(block) {
            Some(offset) => {
                self.resize(offset, layout.size(), 0);
            }
            // SAFETY: it isn't ours, so System gave it with this layout.
            None => unsafe { System.dealloc(block, layout) },
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let Some(offset) = self.offset(block) else {
            // SAFETY: it isn't ours, so System gave it with this layout.
            return unsafe { System.realloc(block, layout, size) };
        };
        if self.resize(offset, layout.size(), size) {
            return block;
        }
        if size <= layout.size() {
            return block;
        }
        // SAFETY: the caller promises that `size`, rounded up to the alignment, is a valid size.
        let new = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        // SAFETY: `size` is larger than a block that exists, so it isn't zero.
        let moved = unsafe { self.alloc(new) };
        if !moved.is_null() {
            // SAFETY: both blocks hold at least the old size, and the new one is nobody else's.
            unsafe { ptr::copy_nonoverlapping(block, moved, layout.size()) };
        }
        moved
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A block as the language's own collections would use it.
    struct Block<'a> {
        arena: &'a Arena<4096>,
        at: *mut u8,
        layout: Layout,
    }

    impl<'a> Block<'a> {
        fn new(arena: &'a Arena<4096>, size: usize, align: usize) -> Self {
            let layout = Layout::from_size_align(size, align).unwrap();
            // SAFETY: the size isn't zero.
            let at = unsafe { arena.alloc(layout) };
            assert!(!at.is_null());
            assert_eq!(at as usize % align, 0);
            let mut block = Block { arena, at, layout };
            block.bytes().fill(0xaa);
            block
        }

        fn bytes(&mut self) -> &mut [u8] {
            // SAFETY: the block is this long and this Block's own; u8 takes any value.
            unsafe { std::slice::from_raw_parts_mut(self.at, self.layout.size()) }
        }

        fn resize(&mut self, size: usize) {
            // SAFETY: the block is the arena's with this layout, the size isn't zero.
            self.at = unsafe { self.arena.realloc(self.at, self.layout, size) };
            self.layout = Layout::from_size_align(size, self.layout.align()).unwrap();
        }

        fn is_inside(&self) -> bool {
            self.arena.offset(self.at).is_some()
        }
    }

    impl Drop for Block<'_> {
        fn drop(&mut self) {
            // SAFETY: the block is the arena's with this layout and not used again.
            unsafe { self.arena.dealloc(self.at, self.layout) }
        }
    }

    #[test]
    fn blocks_do_not_overlap_and_are_aligned() {
        let arena = Box::new(Arena::<4096>::new());
        let mut blocks: Vec<Block> = [(1, 1), (8, 8), (3, 1), (64, 16), (5, 16), (100, 4)]
            .map(|(size, align)| Block::new(&arena, size, align))
            .into();
        for (index, block) in blocks.iter_mut().enumerate() {
            assert!(block.is_inside());
            block.bytes().fill(index as u8);
        }
        for (index, block) in blocks.iter_mut().enumerate() {
            assert!(block.bytes().iter().all(|byte| *byte == index as u8));
        }
    }

    #[test]
    fn the_topmost_block_grows_shrinks_and_returns() {
        let arena = Box::new(Arena::<4096>::new());
        let mut block = Block::new(&arena, 16, 8);
        let at = block.at;
        block.resize(400);
        block.resize(32);
        assert_eq!((block.at, arena.top.load(Ordering::Relaxed)), (at, 32));
        assert!(block.bytes()[..16].iter().all(|byte| *byte == 0xaa));
        drop(block);
        assert_eq!(arena.top.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_lower_block_moves_with_its_content() {
        let arena = Box::new(Arena::<4096>::new());
        let mut lower = Block::new(&arena, 16, 8);
        let mut upper = Block::new(&arena, 16, 8);
        let at = lower.at;
        lower.resize(8);
        assert_eq!(lower.at, at);
        lower.resize(64);
        assert_ne!(lower.at, at);
        assert!(lower.bytes()[..8].iter().all(|byte| *byte == 0xaa));
        assert!(upper.bytes().iter().all(|byte| *byte == 0xaa));
    }

    #[test]
    fn zeroed_blocks_are_zero_where_others_were() {
        let arena = Box::new(Arena::<4096>::new());
        let zeroed = |size: usize| {
            let layout = Layout::from_size_align(size, 16).unwrap();
            // SAFETY: the size isn't zero.
            let at = unsafe { arena.alloc_zeroed(layout) };
            let mut block = Block {
                arena: &arena,
                at,
                layout,
            };
            assert!(block.bytes().iter().all(|byte| *byte == 0));
            block
        };
        drop(Block::new(&arena, 100, 1));
        let mut block = zeroed(200);
        block.bytes().fill(1);
        block.resize(400);
        block.bytes().fill(1);
        drop(block);
        drop(zeroed(512));
        drop(zeroed(512));
    }

    #[test]
    fn what_does_not_fit_comes_from_the_system() {
        let arena = Box::new(Arena::<4096>::new());
        let mut large = Block::new(&arena, 513, 1);
        assert!(!large.is_inside());
        large.resize(10_000);
        assert!(large.bytes()[..513].iter().all(|byte| *byte == 0xaa));
        assert!(!Block::new(&arena, 64, 64).is_inside());
        let mut blocks: Vec<Block> = (0..12).map(|_| Block::new(&arena, 512, 1)).collect();
        assert_eq!(blocks.iter().filter(|block| block.is_inside()).count(), 8);
        assert!(blocks.iter_mut().all(|block| block.bytes()[511] == 0xaa));
    }

    #[test]
    fn threads_get_blocks_of_their_own() {
        let arena = Box::new(Arena::<4096>::new());
        std::thread::scope(|scope| {
            for mark in 0..4u8 {
                let arena = &arena;
                scope.spawn(move || {
                    for _ in 0..200 {
                        let mut block = Block::new(arena, 24, 8);
                        block.bytes().fill(mark);
                        block.resize(40);
                        assert!(block.bytes()[..24].iter().all(|byte| *byte == mark));
                    }
                });
            }
        });
    }
}
