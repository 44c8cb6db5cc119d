//! Small pictures of pictures: pure, slow, and bounded against files that are small and unpack to gigabytes.

use std::io::Cursor;

use image::{
    DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits, codecs::jpeg::JpegEncoder,
    metadata::Orientation,
};

/// The longest file that one is made of, in bytes: it is read whole.
pub(super) const SOURCE_BYTES: u64 = 24 * 1024 * 1024;

/// The longest side of a small picture, in pixels.
const SIDE: u32 = 320;

/// What a picture may unpack to, in bytes: 40 megapixels of three bytes, as the largest usual cameras make.
const UNPACKED: u64 = 128 * 1024 * 1024;

/// No side may be longer, in pixels.
const LONGEST: u32 = 32_768;

/// Of a JPEG, 1 to 100.
const QUALITY: u8 = 80;

/// Whether a picture of this type can have one.
pub(super) fn can_be_made_of(media_type: &str) -> bool {
    matches!(media_type, "image/png" | "image/jpeg" | "image/gif" | "image/webp")
}

/// The type of a small picture that was made here.
pub(super) fn media_type(small: &[u8]) -> &'static str {
    if small.starts_with(b"\x89PNG") { "image/png" } else { "image/jpeg" }
}

/// Makes one, upright: a PNG where anything shows through, a JPEG otherwise. None of what cannot be read, or is too large.
pub(super) fn make(source: &[u8]) -> Option<Vec<u8>> {
    let mut reader = ImageReader::new(Cursor::new(source)).with_guessed_format().ok()?;
    let mut limits = Limits::default();
    limits.max_image_width = Some(LONGEST);
    limits.max_image_height = Some(LONGEST);
    limits.max_alloc = Some(UNPACKED);
    reader.limits(limits);
    let mut decoder = reader.into_decoder().ok()?;
    if decoder.total_bytes() > UNPACKED {
        return None;
    }
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let picture = DynamicImage::from_decoder(decoder).ok()?;
    let mut small =
        if picture.width().max(picture.height()) > SIDE { picture.thumbnail(SIDE, SIDE) } else { picture };
    small.apply_orientation(orientation);
    let mut bytes = Vec::new();
    if small.color().has_alpha() {
        let small = DynamicImage::ImageRgba8(small.into_rgba8());
        small.write_to(&mut Cursor::new(&mut bytes), ImageFormat::Png).ok()?;
    } else {
        let small = small.into_rgb8();
        small.write_with_encoder(JpegEncoder::new_with_quality(&mut bytes, QUALITY)).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use image::{Rgb, RgbImage, Rgba, RgbaImage};

    use super::*;

    fn encoded(picture: DynamicImage, format: ImageFormat) -> Vec<u8> {
        let mut bytes = Vec::new();
        picture.write_to(&mut Cursor::new(&mut bytes), format).unwrap();
        bytes
    }

    fn size(picture: &[u8]) -> (u32, u32) {
        let read = image::load_from_memory(picture).unwrap();
        (read.width(), read.height())
    }

    #[test]
    fn me_7_a_picture_is_made_small_in_its_proportions_and_never_larger() {
        let wide = DynamicImage::ImageRgb8(RgbImage::from_pixel(1_600, 400, Rgb([9, 8, 7])));
        for format in [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::Gif, ImageFormat::WebP] {
            let source = if format == ImageFormat::Gif {
                DynamicImage::ImageRgba8(wide.to_rgba8())
            } else {
                wide.clone()
            };
            let small = make(&encoded(source, format)).unwrap();
            assert_eq!(size(&small), (320, 80), "{format:?}");
        }
        let tiny = DynamicImage::ImageRgb8(RgbImage::from_pixel(3, 5, Rgb([9, 8, 7])));
        let small = make(&encoded(tiny, ImageFormat::Png)).unwrap();
        assert_eq!((size(&small), media_type(&small)), ((3, 5), "image/jpeg"));
    }

    #[test]
    fn me_7_what_shows_through_still_does() {
        let clear = DynamicImage::ImageRgba8(RgbaImage::from_pixel(700, 700, Rgba([1, 2, 3, 0])));
        let small = make(&encoded(clear, ImageFormat::Png)).unwrap();
        assert_eq!((size(&small), media_type(&small)), ((320, 320), "image/png"));
    }

    #[test]
    fn me_7_a_bomb_is_not_unpacked() {
        // A PNG that says it has 30,000 × 30,000 pixels: 2.7 GB.
        let mut bomb = encoded(DynamicImage::ImageRgb8(RgbImage::new(1, 1)), ImageFormat::Png);
        bomb[16..20].copy_from_slice(&30_000_u32.to_be_bytes());
        bomb[20..24].copy_from_slice(&30_000_u32.to_be_bytes());
        let checksum = crc32(&bomb[12..29]);
        bomb[29..33].copy_from_slice(&checksum.to_be_bytes());
        assert_eq!(make(&bomb), None);
        let good = encoded(DynamicImage::ImageRgb8(RgbImage::new(9, 9)), ImageFormat::Png);
        assert_eq!(crc32(&good[12..29]).to_be_bytes(), good[29..33], "the sum is the right one");
    }

    #[test]
    fn me_7_what_is_broken_off_or_mangled_makes_none_and_nothing_fall() {
        let picture = DynamicImage::ImageRgb8(RgbImage::from_fn(64, 64, |x, y| Rgb([x as u8, y as u8, 3])));
        for format in [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::WebP] {
            let whole = encoded(picture.clone(), format);
            for cut in (0..whole.len()).step_by(7) {
                let _ = make(&whole[..cut]);
                let mut mangled = whole.clone();
                mangled[cut] ^= 0x55;
                let _ = make(&mangled);
            }
        }
        assert_eq!(make(b""), None);
        assert_eq!(make(b"no picture at all"), None);
    }

    /// Of PNG's chunks (ISO 3309).
    fn crc32(bytes: &[u8]) -> u32 {
        let byte = |sum: u32, byte: &u8| {
            (0..8).fold(sum ^ u32::from(*byte), |sum, _| {
                if sum & 1 == 1 { 0xedb8_8320 ^ (sum >> 1) } else { sum >> 1 }
            })
        };
        !bytes.iter().fold(u32::MAX, byte)
    }
}
