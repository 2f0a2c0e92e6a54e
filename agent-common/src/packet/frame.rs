//! Access to the bytes of a frame, bounds-checked each time.

/// An integer as it lies in memory: network bytes in native order.
pub trait Raw: Copy {
    const BYTES: usize;
}

impl Raw for u8 {
    const BYTES: usize = 1;
}
impl Raw for u16 {
    const BYTES: usize = 2;
}
impl Raw for u32 {
    const BYTES: usize = 4;
}

/// The linear part of a frame.
///
/// Offsets count bytes from the Ethernet header. Values come and go as they
/// lie in memory ("raw"), never swapped: the Internet checksum does not care
/// (RFC 1071, section 2B), and addresses are only compared and copied.
pub trait Frame {
    /// The value at `offset`, or `None` past the end.
    fn get<T: Raw>(&self, offset: usize) -> Option<T>;
    /// Stores `value` at `offset`, or `None` past the end.
    fn set<T: Raw>(&mut self, offset: usize, value: T) -> Option<()>;
    /// `N` words of 32 bits from `offset` on, checked once, or `None` past the end.
    fn words<const N: usize>(&self, offset: usize) -> Option<[u32; N]>;
    /// Stores `words` from `offset` on, or nothing and `None` past the end.
    fn set_words<const N: usize>(&mut self, offset: usize, words: [u32; N]) -> Option<()>;
    /// Whether the whole frame, linear or not, has at least `bytes` bytes.
    fn holds(&self, bytes: usize) -> bool;
    /// Whether at least `bytes` bytes are there.
    fn has(&self, bytes: usize) -> bool;
    /// Calls [`super::walk_extensions`]. A method, because in BPF it has to be
    /// a function that is verified on its own: inlined, its paths multiply
    /// with everything that comes after them.
    fn walk_extensions(&self, l3: usize, next: u8) -> u64;
}

/// A frame in a byte slice.
#[derive(Debug)]
pub struct SliceFrame<'a>(pub &'a mut [u8]);

impl Frame for SliceFrame<'_> {
    fn get<T: Raw>(&self, offset: usize) -> Option<T> {
        let bytes = self.0.get(offset..offset.checked_add(T::BYTES)?)?;
        // SAFETY: `Raw` is implemented for integers only, the slice has their size.
        #[allow(unsafe_code)]
        Some(unsafe { bytes.as_ptr().cast::<T>().read_unaligned() })
    }

    fn set<T: Raw>(&mut self, offset: usize, value: T) -> Option<()> {
        let bytes = self.0.get_mut(offset..offset.checked_add(T::BYTES)?)?;
        // SAFETY: as above.
        #[allow(unsafe_code)]
        unsafe {
            bytes.as_mut_ptr().cast::<T>().write_unaligned(value);
        }
        Some(())
    }

    fn words<const N: usize>(&self, offset: usize) -> Option<[u32; N]> {
        let mut words = [0; N];
        for (word, i) in words.iter_mut().zip(0..) {
            *word = self.get(offset + i * 4)?;
        }
        Some(words)
    }

    fn set_words<const N: usize>(&mut self, offset: usize, words: [u32; N]) -> Option<()> {
        self.0.get(offset..offset.checked_add(N * 4)?)?;
        for (word, i) in words.into_iter().zip(0..) {
            self.set(offset + i * 4, word)?;
        }
        Some(())
    }

    fn has(&self, bytes: usize) -> bool {
        self.0.len() >= bytes
    }

    fn holds(&self, bytes: usize) -> bool {
        self.has(bytes)
    }

    fn walk_extensions(&self, l3: usize, next: u8) -> u64 {
        super::walk_extensions(self, l3, next)
    }
}
