// Kernels of adjoin. build.sh makes adjoin.ptx of this file; the driver compiles that for the device it finds.
//
// tests/fake-cuda/src/kernels.rs has the same as Rust functions, and server/cuda/tests compare both with plain loops.

typedef unsigned char u8;
typedef unsigned int u32;
typedef unsigned long long u64;

// An entry of the table of adjoin_copy_rows. ROW_BYTES in driver/lane.rs is its size.
struct Row {
    u64 source;
    u64 destination;
    u64 byte_size;
};

// Copies rows between the host's registered memory and the device, in either direction. blockIdx.y is the row; blocks
// along x share it, so that one row can fill the bus. Whole vectors of 16 bytes where both sides allow it, words of 4
// where they allow that, single bytes otherwise and at the end. A row of size 0 is none.
extern "C" __global__ void adjoin_copy_rows(const Row *table, u32 count) {
    const u32 first = blockIdx.x * blockDim.x + threadIdx.x;
    const u32 step = gridDim.x * blockDim.x;
    for (u32 index = blockIdx.y; index < count; index += gridDim.y) {
        const Row row = table[index];
        const u64 misaligned = row.source | row.destination;
        u64 done = 0;
        if ((misaligned & 15) == 0) {
            const uint4 *from = reinterpret_cast<const uint4 *>(row.source);
            uint4 *to = reinterpret_cast<uint4 *>(row.destination);
            const u64 vectors = row.byte_size / 16;
            for (u64 i = first; i < vectors; i += step) {
                to[i] = from[i];
            }
            done = vectors * 16;
        } else if ((misaligned & 3) == 0) {
            const u32 *from = reinterpret_cast<const u32 *>(row.source);
            u32 *to = reinterpret_cast<u32 *>(row.destination);
            const u64 words = row.byte_size / 4;
            for (u64 i = first; i < words; i += step) {
                to[i] = from[i];
            }
            done = words * 4;
        }
        const u8 *from = reinterpret_cast<const u8 *>(row.source);
        u8 *to = reinterpret_cast<u8 *>(row.destination);
        for (u64 i = done + first; i < row.byte_size; i += step) {
            to[i] = from[i];
        }
    }
}

__device__ __forceinline__ void store(float *to, float value) { *to = value; }

// A 16-bit float as its bits: cuda_fp16.h would be all of its include for this one conversion.
__device__ __forceinline__ void store(unsigned short *to, float value) {
    unsigned short bits;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
    *to = bits;
}

// Bytes of images (NHWC) to planes (NCHW): value * scale + offset, rounded once. blockIdx.z is the image.
template <typename T>
__device__ __forceinline__ void normalize(const u8 *source, T *destination, u32 images, u32 pixels, u32 channels,
                                          float4 scale, float4 offset) {
    const float scales[4] = {scale.x, scale.y, scale.z, scale.w};
    const float offsets[4] = {offset.x, offset.y, offset.z, offset.w};
    for (u32 image = blockIdx.z; image < images; image += gridDim.z) {
        const u64 start = static_cast<u64>(image) * pixels * channels;
        for (u64 pixel = blockIdx.x * blockDim.x + threadIdx.x; pixel < pixels; pixel += gridDim.x * blockDim.x) {
            const u8 *from = source + start + pixel * channels;
#pragma unroll
            for (u32 channel = 0; channel < 4; ++channel) {
                if (channel < channels) {
                    const float value = __fmaf_rn(static_cast<float>(from[channel]), scales[channel], offsets[channel]);
                    store(destination + start + static_cast<u64>(channel) * pixels + pixel, value);
                }
            }
        }
    }
}

extern "C" __global__ void adjoin_normalize_f32(const u8 *source, float *destination, u32 images, u32 pixels,
                                                u32 channels, float s0, float s1, float s2, float s3, float o0,
                                                float o1, float o2, float o3) {
    normalize(source, destination, images, pixels, channels, make_float4(s0, s1, s2, s3), make_float4(o0, o1, o2, o3));
}

extern "C" __global__ void adjoin_normalize_f16(const u8 *source, unsigned short *destination, u32 images, u32 pixels,
                                                u32 channels, float s0, float s1, float s2, float s3, float o0,
                                                float o1, float o2, float o3) {
    normalize(source, destination, images, pixels, channels, make_float4(s0, s1, s2, s3), make_float4(o0, o1, o2, o3));
}
