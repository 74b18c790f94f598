#include "lowbit/quantize/part.h"

#include "lowbit/base/check.h"
#include "lowbit/quantize/fault.h"

namespace lowbit {

uint64_t Part::size() const {
  uint64_t total = 0;
  for (const Tensor& tensor : tensors) total += tensor.size;
  return total;
}

Json Part::to_json() const {
  Json list = Json::array();
  for (const Tensor& tensor : tensors) {
    list.push_back({{"name", tensor.name},
                    {"dtype", tensor.dtype},
                    {"shape", tensor.shape},
                    {"size", tensor.size}});
  }
  return {{"unit", unit},       {"sha256", sha256},   {"tensors", list},
          {"linears", linears}, {"weights", weights}, {"quantized_bytes", quantized_bytes}};
}

Part Part::from_json(const Json& record) {
  Part part;
  part.unit = record.at("unit");
  part.sha256 = record.at("sha256");
  for (const Json& tensor : record.at("tensors")) {
    part.tensors.push_back(
        {tensor.at("name"), tensor.at("dtype"), tensor.at("shape"), tensor.at("size")});
  }
  part.linears = record.at("linears");
  part.weights = record.at("weights");
  part.quantized_bytes = record.at("quantized_bytes");
  return part;
}

bool intact(const Part& part, const fs::path& path) {
  std::error_code missing;
  const uint64_t size = fs::file_size(path, missing);
  if (missing || size != part.size()) return false;
  const MappedFile file(path);
  Sha256 hash;
  hash.update(file.bytes());
  return hash.hex() == part.sha256;
}

std::vector<StoredTensor> tensors_of(const Part& part, const fs::path& path) {
  const auto file = std::make_shared<MappedFile>(path);
  LOWBIT_CHECK_KIND(file->size() == part.size(), ErrorKind::kIo, path.string(), " changed size");
  std::vector<StoredTensor> tensors;
  uint64_t begin = 0;
  for (const Part::Tensor& tensor : part.tensors) {
    tensors.push_back({tensor.name, tensor.dtype, tensor.shape,
                       Bytes::view(file, file->data() + begin, tensor.size)});
    begin += tensor.size;
  }
  return tensors;
}

PartWriter::PartWriter(const fs::path& path, std::string unit) : writer_(path) {
  part_.unit = std::move(unit);
}

void PartWriter::add(const StoredTensor& tensor) {
  begin(tensor.name, tensor.dtype, tensor.shape);
  write(std::span(tensor.bytes.data, tensor.bytes.size));
}

void PartWriter::begin(std::string name, std::string dtype, std::vector<int64_t> shape) {
  part_.tensors.push_back({std::move(name), std::move(dtype), std::move(shape), 0});
}

void PartWriter::write(std::span<const uint8_t> bytes) {
  fault_point("part write");
  writer_.write(bytes);
  hash_.update(bytes);
  part_.tensors.back().size += bytes.size();
}

void PartWriter::count_linear(int64_t weights, uint64_t offset) {
  part_.linears += 1;
  part_.weights += weights;
  part_.quantized_bytes += writer_.offset() - offset;
}

Part PartWriter::finish() {
  fault_point("part sync");
  writer_.close();
  part_.sha256 = hash_.hex();
  return std::move(part_);
}

}  // namespace lowbit
