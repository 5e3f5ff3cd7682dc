//! The field of 256 elements that recovery shares are computed in: polynomials over bits modulo x⁸ + x⁴ + x³ + x + 1, as in AES (FIPS 197).
//!
//! Each operation takes the same steps whatever its operands are: no table is looked up and no branch is taken by a secret (CVE-2023-25000 was a
//! Shamir implementation whose tables and branches could be timed). Addition and subtraction are both `^`.

/// Multiplies.
pub(crate) fn multiply(left: u8, right: u8) -> u8 {
    let (mut product, mut shifted) = (0, left);
    for bit in 0..8 {
        product ^= shifted & mask(right >> bit & 1);
        shifted = shifted << 1 ^ 0x1b & mask(shifted >> 7);
    }
    product
}

/// The inverse, as the 254th power; 0 for 0.
pub(crate) fn invert(element: u8) -> u8 {
    let mut power = 1;
    for _ in 0..7 {
        power = multiply(multiply(power, power), element);
    }
    multiply(power, power)
}

/// All bits of a bit: 0 or 255. Black-boxed, so that no compiler makes a branch of it.
fn mask(bit: u8) -> u8 {
    std::hint::black_box(bit).wrapping_neg()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By hand, with carries out of the top reduced one after the other.
    fn slow(left: u8, right: u8) -> u8 {
        let mut long = 0_u16;
        for bit in (0..8).filter(|bit| right >> bit & 1 == 1) {
            long ^= u16::from(left) << bit;
        }
        for bit in (8..16).rev().filter(|bit| 1 << bit & 0xff00 != 0) {
            if long >> bit & 1 == 1 {
                long ^= 0x11b << (bit - 8);
            }
        }
        u8::try_from(long).unwrap()
    }

    #[test]
    fn it_is_the_field_of_aes() {
        // FIPS 197, 4.2.
        assert_eq!((multiply(0x57, 0x83), multiply(0x57, 0x13)), (0xc1, 0xfe));
        for left in 0..=255 {
            for right in 0..=255 {
                assert_eq!(multiply(left, right), slow(left, right), "{left} {right}");
            }
        }
    }

    #[test]
    fn every_element_but_zero_has_its_inverse() {
        assert_eq!(invert(0), 0);
        for element in 1..=255 {
            assert_eq!(multiply(element, invert(element)), 1, "{element}");
        }
    }
}
