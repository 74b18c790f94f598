#include "lowbit/checkpoint/safetensors.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "lowbit/base/check.h"
#include "support/files.h"
#include "support/paths.h"

namespace lowbit {
namespace {

using test::TemporaryFolder;

StoredTensor stored(const std::string& name, const std::string& dtype, std::vector<int64_t> shape,
                    size_t bytes) {
  std::vector<uint8_t> data(bytes);
  for (size_t i = 0; i < bytes; ++i) data[i] = static_cast<uint8_t>(i + name[0]);
  return {name, dtype, std::move(shape), Bytes::own(std::move(data))};
}

// The tensors of tools/golden/safetensors_file.py.
std::vector<StoredTensor> golden_tensors() {
  return {stored("b.f16", "F16", {2, 3}, 12),
          stored("a.bf16", "BF16", {4}, 8),
          stored("c.f32", "F32", {1, 2}, 8),
          stored("d.i32", "I32", {2, 1}, 8),
          stored("e.i64", "I64", {2}, 16),
          stored("f.u8", "U8", {3}, 3),
          stored("g.i8", "I8", {}, 1),
          stored("h.f32", "F32", {0, 5}, 0),
          stored("\xc3\xa9\"\\.u8", "U8", {2}, 2)};
}

TEST(Safetensors, ReadsBackWhatItWrote) {
  const TemporaryFolder folder;
  const std::string path = folder / "model.safetensors";
  const std::vector<StoredTensor> tensors = golden_tensors();
  write_safetensors(path, tensors);
  const SafetensorsFile file(path);
  EXPECT_EQ(file.header().metadata.at("format"), "pt");
  EXPECT_EQ(file.header().tensors.size(), tensors.size());
  for (const StoredTensor& tensor : tensors) {
    const StoredTensor found = file.tensor(tensor.name);
    EXPECT_EQ(found.dtype, tensor.dtype);
    EXPECT_EQ(found.shape, tensor.shape);
    ASSERT_EQ(found.bytes.size, tensor.bytes.size);
    const auto* data = tensor.bytes.data;  // null if there are none
    EXPECT_TRUE(std::equal(data, data + tensor.bytes.size, found.bytes.data));
  }
  EXPECT_FALSE(file.contains("x"));
  EXPECT_THROW(file.tensor("x"), Error);
}

TEST(Safetensors, WritesTheBytesOfTheReferenceWriter) {
  const TemporaryFolder folder;
  write_safetensors(folder / "m.safetensors", golden_tensors());
  EXPECT_EQ(read_file(folder / "m.safetensors", 1 << 20),
            read_file(test::golden("checkpoint/reference.safetensors"), 1 << 20));
}

TEST(Safetensors, WriterRefusesContradictions) {
  const TemporaryFolder folder;
  const std::string path = folder / "m.safetensors";
  EXPECT_THROW(write_safetensors(path, {stored("w", "F16", {3}, 5)}), Error);
  EXPECT_THROW(write_safetensors(path, {stored("w", "Q4_0", {3}, 5)}), Error);
  EXPECT_THROW(write_safetensors(path, {stored("w", "U8", {3}, 3), stored("w", "I8", {3}, 3)}),
               Error);
  EXPECT_THROW(write_safetensors(path, {stored("w", "U8", {-1, -3}, 3)}), Error);
}

TEST(Safetensors, AnEmptyFileOfTensorsIsLegal) {
  const TemporaryFolder folder;
  write_safetensors(folder / "m.safetensors", {}, {});
  EXPECT_TRUE(SafetensorsFile(folder / "m.safetensors").header().tensors.empty());
}

}  // namespace
}  // namespace lowbit
