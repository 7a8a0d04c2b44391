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

// 16-bit floats as their bits: the headers of CUDA would be all of its includes for two conversions.
struct Half {
    unsigned short bits;
};
struct Bfloat {
    unsigned short bits;
};

__device__ __forceinline__ void store(float *to, float value) { *to = value; }

__device__ __forceinline__ void store(Half *to, float value) {
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(to->bits) : "f"(value));
}

// To nearest even: the instruction for it is newer than the oldest device that is served. There is no NaN, as nothing
// that is subtracted or divided by is infinite or 0.
__device__ __forceinline__ void store(Bfloat *to, float value) {
    const u32 bits = __float_as_uint(value);
    to->bits = static_cast<unsigned short>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

// Bytes of images (NHWC) to planes (NCHW): (value * scale - mean) / deviation, rounded after each step and never fused, so
// that the bits are those of input-transform/src/kernel.rs. blockIdx.z is the image.
template <typename T>
__device__ __forceinline__ void normalize(const u8 *source, T *destination, u32 images, u32 pixels, u32 channels,
                                          float scale, float4 mean, float4 deviation) {
    const float means[4] = {mean.x, mean.y, mean.z, mean.w};
    const float deviations[4] = {deviation.x, deviation.y, deviation.z, deviation.w};
    for (u32 image = blockIdx.z; image < images; image += gridDim.z) {
        const u64 start = static_cast<u64>(image) * pixels * channels;
        for (u64 pixel = blockIdx.x * blockDim.x + threadIdx.x; pixel < pixels; pixel += gridDim.x * blockDim.x) {
            const u8 *from = source + start + pixel * channels;
#pragma unroll
            for (u32 channel = 0; channel < 4; ++channel) {
                if (channel < channels) {
                    const float scaled = __fmul_rn(static_cast<float>(from[channel]), scale);
                    const float value = __fdiv_rn(__fsub_rn(scaled, means[channel]), deviations[channel]);
                    store(destination + start + static_cast<u64>(channel) * pixels + pixel, value);
                }
            }
        }
    }
}

extern "C" __global__ void adjoin_normalize_f32(const u8 *source, float *destination, u32 images, u32 pixels,
                                                u32 channels, float scale, float m0, float m1, float m2, float m3,
                                                float d0, float d1, float d2, float d3) {
    normalize(source, destination, images, pixels, channels, scale, make_float4(m0, m1, m2, m3),
              make_float4(d0, d1, d2, d3));
}

extern "C" __global__ void adjoin_normalize_f16(const u8 *source, Half *destination, u32 images, u32 pixels,
                                                u32 channels, float scale, float m0, float m1, float m2, float m3,
                                                float d0, float d1, float d2, float d3) {
    normalize(source, destination, images, pixels, channels, scale, make_float4(m0, m1, m2, m3),
              make_float4(d0, d1, d2, d3));
}

extern "C" __global__ void adjoin_normalize_bf16(const u8 *source, Bfloat *destination, u32 images, u32 pixels,
                                                 u32 channels, float scale, float m0, float m1, float m2, float m3,
                                                 float d0, float d1, float d2, float d3) {
    normalize(source, destination, images, pixels, channels, scale, make_float4(m0, m1, m2, m3),
              make_float4(d0, d1, d2, d3));
}
