//! Memory without a name in any file system, mapped by all ranks of a host. When the last process that maps
//! it is gone, however it went, so is the memory.

use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::ptr::NonNull;

use rustix::fs::{FallocateFlags, MemfdFlags, SealFlags};
use rustix::mm::{Advice, MapFlags, ProtFlags};

use super::room;

/// Name under which the system lists the memory in `/proc`.
const NAME: &str = "squadron-collective";

/// Bytes of the mark by which ranks know that they see the same memory.
pub(crate) const MARK: usize = 32;

/// One mapping. Its first page holds the mark; everything after it is the user's, zero at first.
#[derive(Debug)]
pub(crate) struct Region {
    base: NonNull<u8>,
    /// Bytes of the mapping, the page of the mark included.
    mapped: usize,
}

// SAFETY: the mapping belongs to the process, not to a thread. What is read and written through it is
// governed by the contracts of the methods.
unsafe impl Send for Region {}
// SAFETY: as above.
unsafe impl Sync for Region {}

/// Rounds up to whole pages. `None` if there is no such number.
pub(crate) fn whole_pages(bytes: usize) -> Option<usize> {
    bytes.checked_next_multiple_of(rustix::param::page_size())
}

impl Region {
    /// New memory of `bytes` usable bytes, all of it there: what is lacking is lacking now, as an error, and not
    /// later as a signal. Marked with `mark`. The descriptor is what others reach it by.
    pub(crate) fn create(bytes: usize, mark: &[u8; MARK]) -> io::Result<(OwnedFd, Region)> {
        let mapped = Region::mapped_size(bytes)?;
        room::check(mapped)?;
        let file = rustix::fs::memfd_create(NAME, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        rustix::fs::ftruncate(&file, mapped as u64)?;
        rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, mapped as u64)?;
        // Nobody can take a page away from under the others.
        rustix::fs::fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        let region = Region::map(&file, mapped)?;
        // SAFETY: the region has at least this page, and nobody else has been told of it yet.
        unsafe { region.base.cast::<[u8; MARK]>().write(*mark) };
        Ok((file, region))
    }

    /// Maps the memory that process `pid` has open as `descriptor`, if it is the one with `mark`.
    pub(crate) fn open(pid: u32, descriptor: i32, bytes: usize, mark: &[u8; MARK]) -> io::Result<Region> {
        let path = format!("/proc/{pid}/fd/{descriptor}");
        // Looked at before it is opened: opening some other file might block, or do something.
        if !std::fs::read_link(&path)?.to_string_lossy().contains(NAME) {
            return Err(io::Error::other(format!("{path} is not the memory of this gang")));
        }
        let file: File = OpenOptions::new().read(true).write(true).open(&path)?;
        let (mapped, found) = (Region::mapped_size(bytes)?, file.metadata()?.len());
        if found != mapped as u64 {
            return Err(io::Error::other(format!("{path} has {found} bytes in place of {mapped}")));
        }
        let seals = rustix::fs::fcntl_get_seals(&file)?;
        if !seals.contains(SealFlags::SHRINK) {
            return Err(io::Error::other(format!("{path} could shrink under its users")));
        }
        let region = Region::map(&file, mapped)?;
        // SAFETY: the region has at least this page, and its maker wrote the mark before telling of it.
        let seen = unsafe { region.base.cast::<[u8; MARK]>().read() };
        if seen != *mark {
            return Err(io::Error::other(format!("{path} does not bear the mark of this gang")));
        }
        Ok(region)
    }

    fn mapped_size(bytes: usize) -> io::Result<usize> {
        bytes
            .checked_add(rustix::param::page_size())
            .and_then(whole_pages)
            .filter(|size| isize::try_from(*size).is_ok())
            .ok_or_else(|| io::Error::from(io::ErrorKind::OutOfMemory))
    }

    fn map(file: &impl AsFd, mapped: usize) -> io::Result<Region> {
        let (access, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED);
        // SAFETY: a new mapping at a place of the system's choice touches nothing that exists.
        let base = unsafe { rustix::mm::mmap(std::ptr::null_mut(), mapped, access, flags, file, 0)? };
        let base = NonNull::new(base.cast()).ok_or_else(|| io::Error::from(io::ErrorKind::OutOfMemory))?;
        Ok(Region { base, mapped })
    }

    /// Usable bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.mapped - rustix::param::page_size()
    }

    /// Where `range` of the usable bytes begins. Panics where it is not inside.
    fn at(&self, range: &Range<usize>) -> NonNull<u8> {
        assert!(range.start <= range.end && range.end <= self.bytes(), "{range:?} of {}", self.bytes());
        // SAFETY: the offset is within the mapping, as was just seen.
        unsafe { self.base.add(rustix::param::page_size() + range.start) }
    }

    /// A shared look at values of a type for which all bits are valid, zeros too.
    ///
    /// # Safety
    /// While the reference lives nobody writes these bytes, in whatever process, unless `T` is made of atomics;
    /// and `T` is such a type, without padding that matters.
    pub(crate) unsafe fn values<T>(&self, offset: usize, count: usize) -> &[T] {
        let at = self.at(&(offset..offset + count * size_of::<T>())).cast::<T>();
        assert!(at.is_aligned(), "offset {offset} is not aligned");
        // SAFETY: inside of the mapping, aligned, initialised; the rest is promised by the caller.
        unsafe { NonNull::slice_from_raw_parts(at, count).as_ref() }
    }

    /// An exclusive look at values of a type for which all bits are valid.
    ///
    /// # Safety
    /// While the reference lives nobody else reads or writes these bytes, in whatever process.
    #[allow(clippy::mut_from_ref, reason = "the caller promises what a borrow of the whole cannot express")]
    pub(crate) unsafe fn values_mut<T>(&self, offset: usize, count: usize) -> &mut [T] {
        let at = self.at(&(offset..offset + count * size_of::<T>())).cast::<T>();
        assert!(at.is_aligned(), "offset {offset} is not aligned");
        // SAFETY: inside of the mapping, aligned, initialised; the rest is promised by the caller.
        unsafe { NonNull::slice_from_raw_parts(at, count).as_mut() }
    }

    /// Prepares this process for touching the pages that `range` lies in, which is faster than to do it page by
    /// page when they are first touched. Where the system cannot, that is what happens.
    pub(crate) fn prepare(&self, range: Range<usize>) {
        let page = rustix::param::page_size();
        let range = range.start / page * page..range.end.next_multiple_of(page).min(self.bytes());
        let at = self.at(&range);
        // SAFETY: the range is inside of this mapping, and this advice changes no contents.
        let result =
            unsafe { rustix::mm::madvise(at.as_ptr().cast(), range.len(), Advice::LinuxPopulateWrite) };
        if let Err(error) = result {
            tracing::debug!(%error, "shared memory is not prepared");
        }
    }

    /// Puts memory of this process's own in the place of whole pages, so that what others still write there is
    /// not seen here. The contents are zero then.
    ///
    /// # Safety
    /// No reference into these bytes exists.
    pub(crate) unsafe fn detach(&self, range: Range<usize>) -> io::Result<()> {
        let at = self.at(&range);
        let (access, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE | MapFlags::FIXED);
        // SAFETY: only pages inside of this mapping are replaced, to which no reference exists.
        unsafe { rustix::mm::mmap_anonymous(at.as_ptr().cast(), range.len(), access, flags)? };
        Ok(())
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `map`, and nothing borrows from it any more.
        let result = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), self.mapped) };
        if let Err(error) = result {
            tracing::error!(%error, "giving shared memory back");
        }
    }
}

/// The number by which other processes of the host open `file`.
pub(crate) fn descriptor(file: &OwnedFd) -> i32 {
    file.as_raw_fd()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(bytes: usize) -> (Region, Region) {
        let mark = [7; MARK];
        let (file, region) = Region::create(bytes, &mark).unwrap();
        let other = Region::open(std::process::id(), descriptor(&file), bytes, &mark).unwrap();
        (region, other)
    }

    #[test]
    fn two_mappings_show_the_same_memory_and_outlive_the_file() {
        let (one, two) = pair(10_000);
        // SAFETY: this thread alone knows of the memory, and borrows are short.
        unsafe {
            assert_eq!(two.values::<u32>(400, 2), [0, 0]);
            one.values_mut::<u32>(400, 2).copy_from_slice(&[3, 4]);
            assert_eq!(two.values::<u32>(400, 2), [3, 4]);
        }
        drop(one);
        // SAFETY: as above.
        unsafe { assert_eq!(two.values::<u32>(404, 1), [4]) };
    }

    #[test]
    fn a_detached_part_is_this_mapping_s_own() {
        let page = rustix::param::page_size();
        let (one, two) = pair(3 * page);
        // SAFETY: this thread alone knows of the memory, and borrows are short.
        unsafe {
            one.values_mut::<u8>(page - 1, page + 2).fill(1);
            one.detach(page..2 * page).unwrap();
            assert_eq!(
                one.values::<u8>(page - 1, page + 2).iter().map(|x| usize::from(*x)).sum::<usize>(),
                2
            );
            one.values_mut::<u8>(page, page).fill(9);
            assert_eq!(two.values::<u8>(page, page), vec![1; page]);
        }
    }

    #[test]
    fn what_is_not_the_gang_s_memory_is_not_mapped() {
        let mark = [7; MARK];
        let (file, _region) = Region::create(100, &mark).unwrap();
        let (me, number) = (std::process::id(), descriptor(&file));
        let refused = |result: io::Result<Region>| result.unwrap_err().to_string();
        assert!(refused(Region::open(me, number, 100, &[8; MARK])).contains("mark"));
        assert!(refused(Region::open(me, number, 100_000, &mark)).contains("bytes"));
        let null = File::open("/dev/null").unwrap();
        assert!(refused(Region::open(me, null.as_raw_fd(), 100, &mark)).contains("not the memory"));
        assert!(Region::open(me, -1, 100, &mark).is_err());
        assert!(Region::create(usize::MAX, &mark).is_err());
    }

    #[test]
    #[should_panic(expected = "of ")]
    fn beyond_the_end_is_nothing() {
        let (one, _) = pair(4096);
        // SAFETY: it panics before anything is made.
        unsafe { one.values::<u8>(one.bytes() - 6, 7) };
    }
}
