//! A frame as XDP gives it.

use core::{arch::asm, marker::PhantomData};

use agent_common::packet::{Frame, Raw, walk_extensions};
use aya_ebpf::{bindings::xdp_md, helpers::generated::bpf_xdp_get_buff_len};

/// The linear part of an XDP frame, between two pointers that stay valid
/// until a helper moves the head or the tail.
#[derive(Clone, Copy)]
pub(crate) struct XdpFrame<'a> {
    ctx: *mut xdp_md,
    data: usize,
    data_end: usize,
    _frame: PhantomData<&'a xdp_md>,
}

/// Offsets beyond this are refused, so that the verifier sees a bound. No
/// header that we read starts further in.
const OFFSET_MAX: usize = 0xfff;

/// The largest offset of a network header, one quoted in an ICMPv6 error
/// behind extension headers.
const L3_MAX: u64 = 2048;

/// `base + offset`, out of the compiler's sight, so that it cannot compute the
/// address once for the check and again for the access: to the verifier these
/// are two pointers, and only the first was checked. The mask changes nothing
/// but what the verifier knows of the offset.
#[inline(always)]
fn address(base: usize, offset: usize) -> usize {
    let mut sum = offset;
    // SAFETY: arithmetic on two registers.
    unsafe {
        asm!(
            "{0} &= {mask}",
            "{0} += {1}",
            inout(reg) sum,
            in(reg) base,
            mask = const OFFSET_MAX,
            options(pure, nomem, nostack),
        );
    }
    sum
}

impl XdpFrame<'_> {
    #[inline(always)]
    pub(crate) fn new(ctx: *mut xdp_md) -> Self {
        // SAFETY: the kernel passes a valid context; these are its fields.
        let (data, data_end) = unsafe { ((*ctx).data as usize, (*ctx).data_end as usize) };
        Self {
            ctx,
            data,
            data_end,
            _frame: PhantomData,
        }
    }

    #[inline(always)]
    pub(crate) fn linear_bytes(&self) -> usize {
        self.data_end - self.data
    }
}

impl Frame for XdpFrame<'_> {
    #[inline(always)]
    fn get<T: Raw>(&self, offset: usize) -> Option<T> {
        if offset > OFFSET_MAX {
            return None;
        }
        let start = address(self.data, offset);
        if start + T::BYTES > self.data_end {
            return None;
        }
        // SAFETY: within the frame, by the check above, which the verifier
        // repeats. Packets lie at even addresses, and this kernel's
        // architectures load words from there.
        Some(unsafe { *(start as *const T) })
    }

    #[inline(always)]
    fn set<T: Raw>(&mut self, offset: usize, value: T) -> Option<()> {
        if offset > OFFSET_MAX {
            return None;
        }
        let start = address(self.data, offset);
        if start + T::BYTES > self.data_end {
            return None;
        }
        // SAFETY: as above; XDP frames may be written.
        unsafe {
            *(start as *mut T) = value;
        }
        Some(())
    }

    #[inline(always)]
    fn words<const N: usize>(&self, offset: usize) -> Option<[u32; N]> {
        if offset > OFFSET_MAX {
            return None;
        }
        let start = address(self.data, offset);
        if start + N * 4 > self.data_end {
            return None;
        }
        // SAFETY: as for `get`.
        Some(unsafe { *(start as *const [u32; N]) })
    }

    #[inline(always)]
    fn set_words<const N: usize>(&mut self, offset: usize, words: [u32; N]) -> Option<()> {
        if offset > OFFSET_MAX {
            return None;
        }
        let start = address(self.data, offset);
        if start + N * 4 > self.data_end {
            return None;
        }
        // SAFETY: as for `set`.
        unsafe {
            *(start as *mut [u32; N]) = words;
        }
        Some(())
    }

    #[inline(always)]
    fn has(&self, bytes: usize) -> bool {
        // As lengths: the verifier learns from the checks in `get` and `set`.
        self.linear_bytes() >= bytes
    }

    #[inline(always)]
    fn holds(&self, bytes: usize) -> bool {
        if self.linear_bytes() >= bytes {
            return true;
        }
        // SAFETY: the context is valid; the helper only reads it.
        let whole = unsafe { bpf_xdp_get_buff_len(self.ctx) };
        whole as usize >= bytes
    }

    #[inline(always)]
    fn walk_extensions(&self, l3: usize, next: u8) -> u64 {
        gd_walk(self.ctx, l3 as u64, u32::from(next))
    }
}

/// Global, so that the verifier looks at it once, apart from its callers.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn gd_walk(ctx: *mut xdp_md, l3: u64, next: u32) -> u64 {
    if l3 > L3_MAX {
        return 0;
    }
    walk_extensions(&XdpFrame::new(ctx), l3 as usize, next as u8)
}
