#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "lowbit/base/check.h"
#include "lowbit/checkpoint/checkpoint.h"
#include "lowbit/checkpoint/formats.h"
#include "lowbit/checkpoint/formats/safetensors_format.h"
#include "lowbit/checkpoint/hf_checkpoint.h"
#include "lowbit/checkpoint/shards.h"
#include "lowbit/tensor/dtype.h"
#include "support/files.h"

namespace lowbit {
namespace {

using test::TemporaryFolder;
using test::write_text;

StoredTensor stored(const std::string& name, const std::string& dtype, std::vector<int64_t> shape,
                    const std::vector<float>& values) {
  std::vector<uint8_t> bytes;
  for (const float value : values) {
    const uint16_t half = dtype == "F16" ? f32_to_f16(value) : f32_to_bf16(value);
    const uint8_t* from = dtype == "F32" ? reinterpret_cast<const uint8_t*>(&value)
                                         : reinterpret_cast<const uint8_t*>(&half);
    bytes.insert(bytes.end(), from, from + (dtype == "F32" ? 4 : 2));
  }
  return {name, dtype, std::move(shape), Bytes::own(std::move(bytes))};
}

std::string open_error(const std::string& path) {
  try {
    open_checkpoint(path);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

void expect_open_error(const std::string& path, const std::string& part) {
  const std::string error = open_error(path);
  EXPECT_NE(error.find(part), std::string::npos) << part << " expected, gives: " << error;
}

template <typename Work>
std::string error_of(Work work) {
  try {
    work();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

const char* const kConfig = R"({"model_type": "llama", "extra": [1, {"x": null}]})";

TEST(HfCheckpoint, ReadsDenseWeightsOfEveryWidth) {
  const TemporaryFolder folder;
  write_text(folder / "config.json", kConfig);
  write_text(folder / "generation_config.json", R"({"eos_token_id": [1, 2]})");
  const std::vector<float> values = {1, -2, 0.5, 3, 0, -0.25};
  for (const std::string dtype : {"F32", "F16", "BF16"}) {
    write_safetensors(
        folder / "model.safetensors",
        {stored("m.q.weight", dtype, {2, 3}, values), stored("m.q.bias", dtype, {2}, {0, 0}),
         stored("m.norm.weight", dtype, {6}, values),
         stored("m.rotary_emb.inv_freq", "F32", {1}, {1})});
    const auto checkpoint = open_checkpoint(folder.path());
    EXPECT_EQ(checkpoint->format(), "safetensors");
    EXPECT_EQ(checkpoint->config(), Json::parse(kConfig));
    EXPECT_EQ(checkpoint->generation_config()["eos_token_id"].size(), 2u);
    const LinearWeight linear = checkpoint->load_linear("m.q", 2, 3);
    EXPECT_EQ(dequantize(linear.weight), values);
    EXPECT_EQ(linear.bias, (std::vector<float>{0, 0}));
    EXPECT_EQ(checkpoint->load_vector("m.norm.weight", 6), values);
    EXPECT_TRUE(checkpoint->contains("m.q.weight"));
    EXPECT_FALSE(checkpoint->contains("m.k.weight"));
    ASSERT_EQ(checkpoint->tensors().size(), 3u);
    EXPECT_EQ(checkpoint->tensors()[2].name, "m.q.weight");
    EXPECT_EQ(checkpoint->tensors()[2].format, dtype);
    EXPECT_EQ(checkpoint->tensors()[2].shape, (std::vector<int64_t>{2, 3}));
    EXPECT_NO_THROW(checkpoint->release("m.q"));
  }
}

TEST(HfCheckpoint, ErrorsNameFileTensorAndShapes) {
  const TemporaryFolder folder;
  write_text(folder / "config.json", kConfig);
  StoredTensor wide = stored("m.wide.weight", "F32", {1, 2}, {1, 2});
  wide.dtype = "F64";
  wide.shape = {1, 1};
  write_safetensors(folder / "model.safetensors",
                    {stored("m.q.weight", "F16", {2, 3}, {1, 2, 3, 4, 5, 6}),
                     stored("m.norm.weight", "F32", {2}, {1, NAN}),
                     stored("m.empty.weight", "F32", {0, 3}, {}), wide});
  const auto checkpoint = open_checkpoint(folder.path());
  const std::string shape = error_of([&] { checkpoint->load_linear("m.q", 3, 2); });
  EXPECT_NE(shape.find("model.safetensors: m.q.weight is 2 x 3, config.json says 3 x 2"),
            std::string::npos)
      << shape;
  const std::string dtype = error_of([&] { checkpoint->load_linear("m.wide", 1, 1); });
  EXPECT_NE(dtype.find("\"m.wide.weight\" is F64"), std::string::npos) << dtype;
  const std::string missing = error_of([&] { checkpoint->load_linear("m.k", 3, 2); });
  EXPECT_NE(missing.find("\"m.k.weight\" is missing"), std::string::npos) << missing;
  const std::string nan = error_of([&] { checkpoint->load_vector("m.norm.weight", 2); });
  EXPECT_NE(nan.find("\"m.norm.weight\" holds nan"), std::string::npos) << nan;
  EXPECT_NE(error_of([&] { checkpoint->load_vector("m.norm.weight", 3); }), "");
  EXPECT_NE(error_of([&] { checkpoint->load_linear("m.empty", 0, 3); }), "");
}

TEST(HfCheckpoint, ReadsShardsByTheirIndex) {
  const TemporaryFolder folder;
  write_text(folder / "config.json", kConfig);
  const std::string one = "model-00001-of-00002.safetensors";
  const std::string two = "model-00002-of-00002.safetensors";
  const auto write_index = [&](const Json& weight_map) {
    const Json index = {{"metadata", {{"total_size", -7}}}, {"weight_map", weight_map}};
    write_text(folder / "model.safetensors.index.json", dump_json(index));
  };
  write_index({{"a.weight", one}, {"b.weight", two}});
  expect_open_error(folder.path(), one + " is missing");
  write_safetensors(folder / one, {stored("a.weight", "F16", {1, 2}, {1, 2}),
                                   stored("unlisted.weight", "F16", {1}, {1})});
  write_safetensors(folder / two, {stored("b.weight", "F16", {1, 2}, {3, 4})});
  const auto checkpoint = open_checkpoint(folder.path());
  EXPECT_EQ(dequantize(checkpoint->load_linear("b", 1, 2).weight), (std::vector<float>{3, 4}));
  EXPECT_FALSE(checkpoint->contains("unlisted.weight"));

  write_index({{"a.weight", one}, {"b.weight", two}, {"c.weight", two}});
  expect_open_error(folder.path(), "tensor \"c.weight\" is not in " + two);
  write_index({{"a.weight", one}, {"b.weight", one}});
  expect_open_error(folder.path(), "tensor \"b.weight\" is not in " + one);
  write_index({{"a.weight", one}, {"b.weight", two}});
  write_safetensors(folder / two, {stored("b.weight", "F16", {1, 2}, {3, 4}),
                                   stored("a.weight", "F16", {1, 2}, {3, 4})});
  expect_open_error(folder.path(), "tensor \"a.weight\" is in \"" + one);
}

TEST(HfCheckpoint, ListsTheFirstTwentyProblems) {
  const TemporaryFolder folder;
  write_text(folder / "config.json", kConfig);
  Json weight_map;
  for (int i = 0; i < 30; ++i) weight_map[concat("t", i)] = concat("s", i, ".safetensors");
  write_text(folder / "model.safetensors.index.json", dump_json(Json{{"weight_map", weight_map}}));
  const std::string error = open_error(folder.path());
  EXPECT_NE(error.find("and 10 more"), std::string::npos) << error;
}

TEST(HfCheckpoint, ShardNamesCannotLeaveTheFolder) {
  for (const std::string& name :
       std::vector<std::string>{"../x.safetensors", "/etc/passwd", "a/b.safetensors", "a\\b", "..",
                                ".", "", ".hidden", std::string("x\0y", 3), "a b"}) {
    const Json index = {{"weight_map", {{"t", name}}}};
    EXPECT_THROW(parse_weight_map(index, "index"), Error) << name;
  }
  EXPECT_THROW(parse_weight_map(Json::array(), "index"), Error);
  EXPECT_THROW(parse_weight_map({{"weight_map", 1}}, "index"), Error);
  EXPECT_THROW(parse_weight_map({{"weight_map", {{"t", 1}}}}, "index"), Error);
}

TEST(HfCheckpoint, SaysWhatIsMissing) {
  const TemporaryFolder folder;
  expect_open_error(folder.path(), "no config.json");
  write_text(folder / "adapter_config.json", "{}");
  expect_open_error(folder.path(), "adapter");
  write_text(folder / "config.json", kConfig);
  expect_open_error(folder.path(), "no model.safetensors");
  write_text(folder / "pytorch_model.bin", "PK");
  expect_open_error(folder.path(), "pickles");
  write_text(folder / "one.safetensors", "x");
  write_text(folder / "two.safetensors", "x");
  expect_open_error(folder.path(), "2 safetensors files but no model.safetensors.index.json");
  write_text(folder / "model.safetensors", "x");
  expect_open_error(folder.path(), "model.safetensors: only 1 bytes");
  write_text(folder / "config.json", "[]");
  expect_open_error(folder.path(), "must hold a JSON object");
  write_text(folder / "config.json", std::string(100'000, '['));
  expect_open_error(folder.path(), "config.json: JSON nested deeper");
  write_text(folder / "config.json", "{\"a\": \"\xff\"}");
  expect_open_error(folder.path(), "config.json: not valid JSON");
}

TEST(HfCheckpoint, UnsupportedQuantizationIsNamed) {
  const TemporaryFolder folder;
  write_safetensors(folder / "model.safetensors", {});
  for (const std::string method : {"torchao", "quanto", "eetq", "higgs", "bitnet", "mxfp4"}) {
    write_text(folder / "config.json",
               dump_json(Json{{"quantization_config", {{"quant_method", method}}}}));
    expect_open_error(folder.path(), "method \"" + method + "\"");
    expect_open_error(folder.path(), "safetensors");
  }
  for (const char* bad : {"7", "\"gptq\"", "[]", "{\"quant_method\": 4}", "{}"}) {
    write_text(folder / "config.json", concat("{\"quantization_config\": ", bad, "}"));
    EXPECT_NE(open_error(folder.path()), "") << bad;
  }
}

TEST(HfCheckpoint, FindsTheQuantizationWhereverItIs) {
  const Json gptq = {{"quant_method", "gptq"}, {"bits", 4}};
  EXPECT_EQ(find_quantization_config({{"quantization_config", gptq}}, {}, {}), gptq);
  EXPECT_EQ(find_quantization_config({{"quantization_config", nullptr}}, {}, {}), Json());
  EXPECT_EQ(find_quantization_config({}, {{"bits", 4}}, {}), gptq);
  EXPECT_EQ(find_quantization_config({}, {}, {{"w_bit", 4}})["quant_method"], "awq");
  EXPECT_EQ(find_quantization_config({}, {}, {{"version", "MIX"}})["quant_method"], "mixq");
  EXPECT_EQ(
      find_quantization_config({{"compression_config", {{"format", "x"}}}}, {}, {})["quant_method"],
      "compressed-tensors");
  EXPECT_EQ(find_quantization_config({{"quantization_config", {{"load_in_4bit", true}}}}, {},
                                     {})["quant_method"],
            "bitsandbytes");
}

TEST(HfCheckpoint, UnalignedDataIsReadRight) {
  const std::string header = R"({"w":{"dtype":"F32","shape":[1,2],"data_offsets":[0,8]}})";
  const TemporaryFolder folder;
  write_text(folder / "config.json", kConfig);
  for (size_t shift = 0; shift < 4; ++shift) {
    const std::string padded = header + std::string(shift, ' ');
    const uint64_t length = padded.size();
    const float values[2] = {1.5f, -2.5f};
    std::string bytes(reinterpret_cast<const char*>(&length), 8);
    bytes.append(padded).append(reinterpret_cast<const char*>(values), 8);
    write_text(folder / "model.safetensors", bytes);
    SafetensorsFile file(folder / "model.safetensors");
    const QTensor weight = dense_weight(file.tensor("w"));
    EXPECT_EQ(dequantize(weight), (std::vector<float>{1.5f, -2.5f}));
    EXPECT_EQ(reinterpret_cast<uintptr_t>(weight.codes.data) % 4, 0u);
  }
}

TEST(HfCheckpoint, AFileThatShrinksWhileInUseIsAnError) {
  const TemporaryFolder folder;
  write_text(folder / "config.json", kConfig);
  write_safetensors(folder / "model.safetensors",
                    {stored("m.weight", "F32", {64, 1024}, std::vector<float>(64 * 1024, 1.f))});
  const auto checkpoint = open_checkpoint(folder.path());
  const LinearWeight linear = checkpoint->load_linear("m", 64, 1024);
  fs::resize_file(folder / "model.safetensors", 4096);
  dequantize(linear.weight);  // reads zeros instead of ending the program
  EXPECT_THROW(checkpoint->release("m"), Error);
}

TEST(Formats, TheTableEndsWithWhatIsNotQuantized) {
  EXPECT_STREQ(checkpoint_formats().back().name, "safetensors");
  EXPECT_EQ(&checkpoint_format("safetensors"), &checkpoint_formats().back());
  EXPECT_THROW(checkpoint_format("pickle"), Error);
  const QTensor weight = dense_f32({1, 2}, 1, 2);
  EXPECT_EQ(kSafetensorsFormat.write("m", weight)[0].name, "m.weight");
  QTensor quantized = weight;
  quantized.scheme = int_scheme(4, 32);
  EXPECT_THROW(kSafetensorsFormat.write("m", quantized), Error);
}

}  // namespace
}  // namespace lowbit
