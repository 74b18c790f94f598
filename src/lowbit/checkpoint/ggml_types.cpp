#include "lowbit/checkpoint/ggml_types.h"

#include <cstring>

#include "lowbit/base/check.h"
#include "lowbit/tensor/dtype.h"

namespace lowbit {

namespace {

float half_at(const uint8_t* at) {
  uint16_t half;
  std::memcpy(&half, at, 2);
  return f16_to_f32(half);
}

// The low and the high nibbles of 16 bytes become 16 codes each.
void split_nibbles(const uint8_t* bytes, uint8_t* low, uint8_t* high, int count = 16) {
  for (int i = 0; i < count; ++i) {
    low[i] = bytes[i] & 15;
    high[i] = bytes[i] >> 4;
  }
}

// Adds bit j of the word as the fifth bit of code j.
void add_fifth_bits(const uint8_t* word, uint8_t* codes) {
  uint32_t bits;
  std::memcpy(&bits, word, 4);
  for (int i = 0; i < 32; ++i) codes[i] = static_cast<uint8_t>(codes[i] | ((bits >> i & 1) << 4));
}

// A format decodes one block of kElems weights at a time: one code a byte, one scale (and offset,
// where kZero is kOffset) per kGroup weights.

struct Q4_0 {  // d, nibbles
  static constexpr int kBits = 4, kElems = 32, kBytes = 18, kGroup = 32;
  static constexpr Zero kZero = Zero::kNone;
  static void decode(const uint8_t* block, uint8_t* codes, float* scales, float*) {
    scales[0] = half_at(block);
    split_nibbles(block + 2, codes, codes + 16);
  }
};

struct Q4_1 {  // d, m, nibbles
  static constexpr int kBits = 4, kElems = 32, kBytes = 20, kGroup = 32;
  static constexpr Zero kZero = Zero::kOffset;
  static void decode(const uint8_t* block, uint8_t* codes, float* scales, float* offsets) {
    scales[0] = half_at(block);
    offsets[0] = half_at(block + 2);
    split_nibbles(block + 4, codes, codes + 16);
  }
};

struct Q5_0 {  // d, fifth bits, nibbles
  static constexpr int kBits = 5, kElems = 32, kBytes = 22, kGroup = 32;
  static constexpr Zero kZero = Zero::kNone;
  static void decode(const uint8_t* block, uint8_t* codes, float* scales, float*) {
    scales[0] = half_at(block);
    split_nibbles(block + 6, codes, codes + 16);
    add_fifth_bits(block + 2, codes);
  }
};

struct Q5_1 {  // d, m, fifth bits, nibbles
  static constexpr int kBits = 5, kElems = 32, kBytes = 24, kGroup = 32;
  static constexpr Zero kZero = Zero::kOffset;
  static void decode(const uint8_t* block, uint8_t* codes, float* scales, float* offsets) {
    scales[0] = half_at(block);
    offsets[0] = half_at(block + 2);
    split_nibbles(block + 8, codes, codes + 16);
    add_fifth_bits(block + 4, codes);
  }
};

struct Q8_0 {  // d, signed bytes
  static constexpr int kBits = 8, kElems = 32, kBytes = 34, kGroup = 32;
  static constexpr Zero kZero = Zero::kNone;
  static void decode(const uint8_t* block, uint8_t* codes, float* scales, float*) {
    scales[0] = half_at(block);
    for (int i = 0; i < 32; ++i) codes[i] = block[2 + i] ^ 0x80;  // + 128
  }
};

struct Iq4Nl : Q4_0 {};  // as Q4_0; the codes index a table

// Two bits of each of 32 bytes become 32 codes: sub-block `quarter` of a half of Q2_K or Q3_K.
void take_pairs(const uint8_t* bytes, int quarter, uint8_t* codes) {
  for (int i = 0; i < 32; ++i) codes[i] = (bytes[i] >> (2 * quarter)) & 3;
}

struct Q2_K {  // 16 scale and minimum nibbles, pairs, d, dmin
  static constexpr int kBits = 2, kElems = 256, kBytes = 84, kGroup = 16;
  static constexpr Zero kZero = Zero::kOffset;
  static void decode(const uint8_t* block, uint8_t* codes, float* scales, float* offsets) {
    const float d = half_at(block + 80);
    const float dmin = half_at(block + 82);
    for (int i = 0; i < 16; ++i) {
      scales[i] = d * static_cast<float>(block[i] & 15);
      offsets[i] = -(dmin * static_cast<float>(block[i] >> 4));
    }
    for (int i = 0; i < 8; ++i) take_pairs(block + 16 + i / 4 * 32, i % 4, codes + 32 * i);
  }
};

struct Q3_K {  // third bits (set: not minus 4), pairs, 16 packed 6-bit scales, d
  static constexpr int kBits = 3, kElems = 256, kBytes = 110, kGroup = 16;
  static constexpr Zero kZero = Zero::kNone;
  static void decode(const uint8_t* block, uint8_t* codes, float* scales, float*) {
    const uint8_t* packed = block + 96;
    const float d = half_at(block + 108);
    for (int i = 0; i < 16; ++i) {
      // Bytes 0-7 hold the low nibbles of scales i and i + 8, bytes 8-11 the upper pairs.
      const int low = i < 8 ? packed[i] & 15 : packed[i - 8] >> 4;
      const int high = (packed[8 + i % 4] >> (2 * (i / 4))) & 3;
      scales[i] = d * static_cast<float>((low | high << 4) - 32);
    }
    for (int i = 0; i < 8; ++i) {
      take_pairs(block + 32 + i / 4 * 32, i % 4, codes + 32 * i);
      for (int l = 0; l < 32; ++l) {
        codes[32 * i + l] = static_cast<uint8_t>(codes[32 * i + l] | ((block[l] >> i & 1) << 2));
      }
    }
  }
};

// The eight 6-bit scales and minimums of Q4_K and Q5_K, in 12 bytes after d and dmin.
void decode_k_scales(const uint8_t* block, float* scales, float* offsets) {
  const float d = half_at(block);
  const float dmin = half_at(block + 2);
  const uint8_t* packed = block + 4;
  for (int i = 0; i < 8; ++i) {
    const int scale = i < 4 ? packed[i] & 63 : (packed[i + 4] & 15) | (packed[i - 4] >> 6) << 4;
    const int minimum = i < 4 ? packed[i + 4] & 63 : packed[i + 4] >> 4 | (packed[i] >> 6) << 4;
    scales[i] = d * static_cast<float>(scale);
    offsets[i] = -(dmin * static_cast<float>(minimum));
  }
}

struct Q4_K {  // d, dmin, scales, nibbles
  static constexpr int kBits = 4, kElems = 256, kBytes = 144, kGroup = 32;
  static constexpr Zero kZero = Zero::kOffset;
  static void decode(const uint8_t* block, uint8_t* codes, float* scales, float* offsets) {
    decode_k_scales(block, scales, offsets);
    for (int i = 0; i < 4; ++i) {
      split_nibbles(block + 16 + 32 * i, codes + 64 * i, codes + 64 * i + 32, 32);
    }
  }
};

struct Q5_K {  // d, dmin, scales, fifth bits, nibbles
  static constexpr int kBits = 5, kElems = 256, kBytes = 176, kGroup = 32;
  static constexpr Zero kZero = Zero::kOffset;
  static void decode(const uint8_t* block, uint8_t* codes, float* scales, float* offsets) {
    decode_k_scales(block, scales, offsets);
    const uint8_t* fifth = block + 16;
    for (int i = 0; i < 4; ++i) {
      split_nibbles(block + 48 + 32 * i, codes + 64 * i, codes + 64 * i + 32, 32);
    }
    for (int i = 0; i < 8; ++i) {
      for (int l = 0; l < 32; ++l) {
        codes[32 * i + l] = static_cast<uint8_t>(codes[32 * i + l] | ((fifth[l] >> i & 1) << 4));
      }
    }
  }
};

struct Q6_K {  // nibbles, upper pairs, 16 signed scales, d
  static constexpr int kBits = 6, kElems = 256, kBytes = 210, kGroup = 16;
  static constexpr Zero kZero = Zero::kNone;
  static void decode(const uint8_t* block, uint8_t* codes, float* scales, float*) {
    const float d = half_at(block + 208);
    for (int i = 0; i < 16; ++i) {
      scales[i] = d * static_cast<float>(static_cast<int8_t>(block[192 + i]));
    }
    for (int half = 0; half < 2; ++half) {
      const uint8_t* low = block + 64 * half;
      const uint8_t* high = block + 128 + 32 * half;
      uint8_t* out = codes + 128 * half;
      split_nibbles(low, out, out + 64, 32);
      split_nibbles(low + 32, out + 32, out + 96, 32);
      for (int quarter = 0; quarter < 4; ++quarter) {
        for (int l = 0; l < 32; ++l) {
          const int upper = (high[l] >> (2 * quarter)) & 3;
          out[32 * quarter + l] = static_cast<uint8_t>(out[32 * quarter + l] | upper << 4);
        }
      }
    }
  }
};

// The ternary types: codes 0, 1, 2 for -d, 0, d (two bits can also say 3, for 2 * d).

struct Q2_0 {  // d, pairs
  static constexpr int kBits = 2, kElems = 64, kBytes = 18, kGroup = 64;
  static constexpr Zero kZero = Zero::kInt;
  static void decode(const uint8_t* block, uint8_t* codes, float* scales, float*) {
    scales[0] = half_at(block);
    for (int i = 0; i < 64; ++i) codes[i] = (block[2 + i / 4] >> (i % 4 * 2)) & 3;
  }
};

struct TQ2_0 {  // pairs, d
  static constexpr int kBits = 2, kElems = 256, kBytes = 66, kGroup = 256;
  static constexpr Zero kZero = Zero::kInt;
  static void decode(const uint8_t* block, uint8_t* codes, float* scales, float*) {
    scales[0] = half_at(block + 64);
    for (int i = 0; i < 8; ++i) take_pairs(block + i / 4 * 32, i % 4, codes + 32 * i);
  }
};

// Bytes are fractions of 256 whose digits to base 3 are codes: `run` codes have the same digit.
void take_digits(const uint8_t* bytes, int run, int digits, uint8_t* codes) {
  for (int i = 0; i < run; ++i) {
    int fraction = bytes[i];
    for (int n = 0; n < digits; ++n) {
      codes[n * run + i] = static_cast<uint8_t>(fraction * 3 >> 8);
      fraction = fraction * 3 & 255;
    }
  }
}

struct TQ1_0 {  // 48 bytes of five digits, 4 of four, d
  static constexpr int kBits = 2, kElems = 256, kBytes = 54, kGroup = 256;
  static constexpr Zero kZero = Zero::kInt;
  static void decode(const uint8_t* block, uint8_t* codes, float* scales, float*) {
    scales[0] = half_at(block + 52);
    take_digits(block, 32, 5, codes);
    take_digits(block + 32, 16, 5, codes + 160);
    take_digits(block + 48, 4, 4, codes + 240);
  }
};

struct Q1_0 {  // d, bits: d or -d
  static constexpr int kBits = 1, kElems = 128, kBytes = 18, kGroup = 128;
  static constexpr Zero kZero = Zero::kOffset;
  static void decode(const uint8_t* block, uint8_t* codes, float* scales, float* offsets) {
    const float d = half_at(block);
    scales[0] = 2 * d;
    offsets[0] = -d;
    for (int i = 0; i < 128; ++i) codes[i] = block[2 + i / 8] >> (i % 8) & 1;
  }
};

// Packs eight codes, one a byte, into `bits` bytes, merging neighbours in 16, 32 and 64-bit lanes.
template <int bits>
void pack_eight(const uint8_t* codes, uint8_t* out) {
  uint64_t word;
  std::memcpy(&word, codes, 8);
  constexpr uint64_t k16 = 0x00ff00ff00ff00ff, k32 = 0x0000ffff0000ffff, k64 = 0x00000000ffffffff;
  word = (word & k16) | (word >> 8 & k16) << bits;
  word = (word & k32) | (word >> 16 & k32) << (2 * bits);
  word = (word & k64) | (word >> 32) << (4 * bits);
  std::memcpy(out, &word, bits);
}

void check_size(Bytes blocks, int64_t rows, int64_t cols, int64_t elems, int64_t bytes) {
  LOWBIT_CHECK_KIND(rows > 0 && cols > 0 && cols % elems == 0 &&
                        blocks.size / static_cast<size_t>(bytes) ==
                            static_cast<size_t>(rows) * static_cast<size_t>(cols / elems) &&
                        blocks.size % static_cast<size_t>(bytes) == 0,
                    ErrorKind::kCorruptFile, blocks.size, " bytes cannot hold ", rows, " x ", cols,
                    " weights in blocks of ", elems, " weights and ", bytes, " bytes");
}

template <typename Format>
QTensor read_blocks(Bytes blocks, int64_t rows, int64_t cols) {
  check_size(blocks, rows, cols, Format::kElems, Format::kBytes);
  QTensor weight;
  weight.scheme = int_scheme(Format::kBits, Format::kGroup, Format::kZero);
  if constexpr (std::is_same_v<Format, Iq4Nl>) weight.scheme.code = Code::kIq4Nl;
  weight.rows = rows;
  weight.cols = cols;
  const int64_t count = rows * (cols / Format::kElems);
  constexpr int64_t groups = Format::kElems / Format::kGroup;
  const auto size = static_cast<size_t>(rows * weight.row_bytes());
  auto codes = std::make_shared_for_overwrite<uint8_t[]>(size);
  weight.scales.resize(static_cast<size_t>(count * groups));
  if (Format::kZero == Zero::kOffset) weight.offsets.resize(weight.scales.size());
  if (Format::kZero == Zero::kInt) weight.zeros.assign(weight.scales.size(), 1);

  // Rows are whole blocks, so the matrix is one run of them.
  uint8_t decoded[Format::kElems];
  uint8_t* out = codes.get();
  for (int64_t i = 0; i < count; ++i) {
    float* offsets = nullptr;
    if constexpr (Format::kZero == Zero::kOffset) offsets = weight.offsets.data() + i * groups;
    Format::decode(blocks.data + i * Format::kBytes, decoded, weight.scales.data() + i * groups,
                   offsets);
    for (int eight = 0; eight < Format::kElems; eight += 8, out += Format::kBits) {
      pack_eight<Format::kBits>(decoded + eight, out);
    }
  }
  const uint8_t* data = codes.get();
  weight.codes = Bytes::view(std::move(codes), data, size);
  return weight;
}

// Dense weights stay where they are.
template <Code code>
QTensor read_dense(Bytes blocks, int64_t rows, int64_t cols) {
  QTensor weight;
  weight.scheme = dense_scheme(code);
  weight.rows = rows;
  weight.cols = cols;
  check_size(blocks, rows, cols, 1, weight.scheme.bits / 8);
  weight.codes = std::move(blocks);
  return weight;
}

template <typename Format>
constexpr GgmlType row(uint32_t id, const char* name) {
  return {id, name, Format::kElems, Format::kBytes, read_blocks<Format>};
}
constexpr GgmlType unread(uint32_t id, const char* name, int64_t elems, int64_t bytes) {
  return {id, name, elems, bytes, nullptr};
}

constexpr GgmlType kTypes[] = {
    {0, "F32", 1, 4, read_dense<Code::kF32>},
    {1, "F16", 1, 2, read_dense<Code::kF16>},
    row<Q4_0>(2, "Q4_0"),
    row<Q4_1>(3, "Q4_1"),
    row<Q5_0>(6, "Q5_0"),
    row<Q5_1>(7, "Q5_1"),
    row<Q8_0>(8, "Q8_0"),
    unread(9, "Q8_1", 32, 36),
    row<Q2_K>(10, "Q2_K"),
    row<Q3_K>(11, "Q3_K"),
    row<Q4_K>(12, "Q4_K"),
    row<Q5_K>(13, "Q5_K"),
    row<Q6_K>(14, "Q6_K"),
    unread(15, "Q8_K", 256, 292),
    unread(16, "IQ2_XXS", 256, 66),
    unread(17, "IQ2_XS", 256, 74),
    unread(18, "IQ3_XXS", 256, 98),
    unread(19, "IQ1_S", 256, 50),
    row<Iq4Nl>(20, "IQ4_NL"),
    unread(21, "IQ3_S", 256, 110),
    unread(22, "IQ2_S", 256, 82),
    unread(23, "IQ4_XS", 256, 136),
    unread(24, "I8", 1, 1),
    unread(25, "I16", 1, 2),
    unread(26, "I32", 1, 4),
    unread(27, "I64", 1, 8),
    unread(28, "F64", 1, 8),
    unread(29, "IQ1_M", 256, 56),
    {30, "BF16", 1, 2, read_dense<Code::kBF16>},
    row<TQ1_0>(34, "TQ1_0"),
    row<TQ2_0>(35, "TQ2_0"),
    unread(39, "MXFP4", 32, 17),
    unread(40, "NVFP4", 64, 36),
    row<Q1_0>(41, "Q1_0"),
    row<Q2_0>(42, "Q2_0"),
};

}  // namespace

const GgmlType* ggml_type(uint32_t id) {
  for (const GgmlType& type : kTypes) {
    if (type.id == id) return &type;
  }
  return nullptr;
}

const GgmlType* ggml_type(const std::string& name) {
  for (const GgmlType& type : kTypes) {
    if (name == type.name) return &type;
  }
  return nullptr;
}

}  // namespace lowbit
