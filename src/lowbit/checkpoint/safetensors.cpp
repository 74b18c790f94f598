#include "lowbit/checkpoint/safetensors.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <set>
#include <sstream>

#include "lowbit/base/check.h"
#include "lowbit/base/json.h"
#include "lowbit/base/limits.h"

namespace lowbit {

static_assert(std::endian::native == std::endian::little, "checkpoints are little-endian");

namespace {

// In the order of the reference's enumeration: its writer sorts by it, widest alignment first.
struct DtypeRow {
  const char* name;
  int bits;
};
constexpr DtypeRow kDtypes[] = {
    {"BOOL", 8},        {"F4", 4},      {"F6_E2M3", 6}, {"F6_E3M2", 6}, {"U8", 8},
    {"I8", 8},          {"F8_E5M2", 8}, {"F8_E4M3", 8}, {"F8_E8M0", 8}, {"F8_E4M3FNUZ", 8},
    {"F8_E5M2FNUZ", 8}, {"I16", 16},    {"U16", 16},    {"F16", 16},    {"BF16", 16},
    {"I32", 32},        {"U32", 32},    {"F32", 32},    {"C64", 64},    {"F64", 64},
    {"I64", 64},        {"U64", 64}};

int dtype_rank(const std::string& dtype) {
  for (size_t i = 0; i < std::size(kDtypes); ++i) {
    if (dtype == kDtypes[i].name) return static_cast<int>(i);
  }
  return -1;
}

// Bytes of a dense tensor; false if the dtype is unknown, the product overflows or bits do not
// fill bytes.
bool tensor_bytes(const std::string& dtype, const std::vector<int64_t>& shape, uint64_t* bytes) {
  const int bits = safetensors_bits(dtype);
  if (bits == 0) return false;
  uint64_t total = static_cast<uint64_t>(bits);
  for (const int64_t dimension : shape) {
    if (dimension < 0) return false;
    if (__builtin_mul_overflow(total, static_cast<uint64_t>(dimension), &total)) return false;
  }
  *bytes = total / 8;
  return total % 8 == 0;
}

std::string shape_text(const std::vector<int64_t>& shape) { return dump_json(Json(shape)); }

// Builds the header straight from the parser's events. There is no document in between, so memory
// is bounded by what is kept, and nesting by what the format allows.
class HeaderReader final : public nlohmann::json_sax<Json> {
 public:
  HeaderReader(SafetensorsHeader* header, const std::string& origin)
      : header_(*header), origin_(origin) {}

  bool null() override { unexpected("null"); }
  bool boolean(bool) override { unexpected("true or false"); }
  bool number_float(number_float_t, const string_t& text) override { unexpected(text); }
  bool binary(binary_t&) override { unexpected("binary"); }
  bool number_integer(number_integer_t value) override { unexpected(std::to_string(value)); }

  bool number_unsigned(number_unsigned_t value) override {
    if (place_ == Place::kShape) {
      if (entry_.shape.size() == limits::kTensorRank) corrupt("more than 8 dimensions");
      if (value > INT64_MAX) corrupt("dimension ", value, " is too large");
      entry_.shape.push_back(static_cast<int64_t>(value));
    } else if (place_ == Place::kOffsets) {
      if (offsets_seen_ == 2) corrupt("data_offsets has more than two numbers");
      (offsets_seen_ == 0 ? entry_.begin : entry_.end) = value;
      ++offsets_seen_;
    } else {
      unexpected(std::to_string(value));
    }
    return true;
  }

  bool string(string_t& value) override {
    if (place_ == Place::kMetadata) {
      header_.metadata[member_] = value;
    } else if (place_ == Place::kEntry && member_ == "dtype") {
      if (value.size() > 32) corrupt("dtype of ", value.size(), " characters");
      entry_.dtype = value;
    } else {
      unexpected("a string");
    }
    return true;
  }

  bool start_object(size_t) override {
    if (place_ == Place::kOutside) {
      place_ = Place::kTop;
    } else if (place_ == Place::kTop) {
      place_ = name_ == "__metadata__" ? Place::kMetadata : Place::kEntry;
      entry_ = {};
      offsets_seen_ = 0;
      seen_ = {};
    } else {
      unexpected("an object");
    }
    return true;
  }

  bool end_object() override {
    if (place_ == Place::kEntry) {
      if (!(seen_[0] && seen_[1] && seen_[2])) corrupt("needs dtype, shape and data_offsets");
      if (header_.tensors.size() == limits::kTensorCount) {
        corrupt("more than ", limits::kTensorCount, " tensors");
      }
      header_.tensors.emplace(name_, entry_);
    }
    place_ = place_ == Place::kTop ? Place::kOutside : Place::kTop;
    return true;
  }

  bool start_array(size_t) override {
    if (place_ == Place::kEntry && member_ == "shape") {
      place_ = Place::kShape;
    } else if (place_ == Place::kEntry && member_ == "data_offsets") {
      place_ = Place::kOffsets;
    } else {
      unexpected("an array");
    }
    return true;
  }

  bool end_array() override {
    if (place_ == Place::kOffsets && offsets_seen_ != 2) corrupt("data_offsets needs two numbers");
    place_ = Place::kEntry;
    return true;
  }

  bool key(string_t& name) override {
    if (place_ == Place::kTop) {
      name_ = name;
      member_.clear();
      check_name();
      const bool metadata = name == "__metadata__";
      if (metadata ? metadata_seen_ : header_.tensors.count(name) != 0) corrupt("appears twice");
      metadata_seen_ |= metadata;
    } else if (place_ == Place::kMetadata) {
      member_ = name;
      if (header_.metadata.count(name) != 0) corrupt("member \"", name, "\" appears twice");
    } else {
      member_ = name;
      const size_t which = name == "dtype"          ? 0
                           : name == "shape"        ? 1
                           : name == "data_offsets" ? 2
                                                    : 3;
      if (which == 3) corrupt("unknown member \"", name.substr(0, 64), "\"");
      if (seen_[which]) corrupt("member \"", name, "\" appears twice");
      seen_[which] = true;
    }
    return true;
  }

  bool parse_error(size_t position, const std::string&,
                   const nlohmann::detail::exception& error) override {
    fail(ErrorKind::kCorruptFile, origin_, ": header is not valid JSON at byte ", position, ": ",
         std::string(error.what()).substr(0, 200));
  }

 private:
  enum class Place { kOutside, kTop, kMetadata, kEntry, kShape, kOffsets };

  void check_name() {
    if (name_.size() > limits::kTensorNameBytes) {
      const size_t length = name_.size();
      name_.resize(40);
      corrupt("name of ", length, " bytes, the limit is ", limits::kTensorNameBytes);
    }
    for (const char c : name_) {
      if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) {
        fail(ErrorKind::kCorruptFile, origin_, ": a tensor name holds a control character");
      }
    }
  }

  template <typename... Parts>
  [[noreturn]] void corrupt(const Parts&... parts) {
    fail(ErrorKind::kCorruptFile, origin_, ": tensor \"", name_, "\": ", parts...);
  }
  [[noreturn]] void unexpected(const std::string& what) {
    if (place_ == Place::kOutside) {
      fail(ErrorKind::kCorruptFile, origin_, ": the header must be a JSON object, found ", what);
    }
    corrupt("\"", member_, "\" cannot hold ", what);
  }

  SafetensorsHeader& header_;
  const std::string& origin_;
  Place place_ = Place::kOutside;
  std::string name_;    // member of the top object
  std::string member_;  // member of an entry or of __metadata__
  SafetensorsHeader::Entry entry_;
  int offsets_seen_ = 0;
  std::array<bool, 3> seen_ = {};  // dtype, shape, data_offsets
  bool metadata_seen_ = false;
};

// Sizes match, and the tensors tile the buffer: no holes, no overlaps, nothing left over.
void check_extents(SafetensorsHeader* header, uint64_t buffer_begin, uint64_t buffer_size,
                   const std::string& origin) {
  struct Extent {
    uint64_t begin, end;
    const std::string* name;
  };
  std::vector<Extent> extents;
  extents.reserve(header->tensors.size());
  for (auto& [name, entry] : header->tensors) {
    const auto corrupt = [&, &name = name](const auto&... parts) {
      fail(ErrorKind::kCorruptFile, origin, ": tensor \"", name, "\": ", parts...);
    };
    if (safetensors_bits(entry.dtype) == 0) corrupt("unknown dtype \"", entry.dtype, "\"");
    uint64_t bytes = 0;
    if (!tensor_bytes(entry.dtype, entry.shape, &bytes)) {
      corrupt(entry.dtype, " of shape ", shape_text(entry.shape), " has no valid size");
    }
    if (entry.begin > entry.end || entry.end > buffer_size) {
      corrupt("data_offsets ", entry.begin, "..", entry.end, " do not fit the file's ", buffer_size,
              " bytes of data; the file may be truncated, fetch it again");
    }
    if (entry.end - entry.begin != bytes) {
      corrupt("data_offsets hold ", entry.end - entry.begin, " bytes, ", entry.dtype, " of shape ",
              shape_text(entry.shape), " needs ", bytes);
    }
    extents.push_back({entry.begin, entry.end, &name});
    entry.begin += buffer_begin;
    entry.end += buffer_begin;
  }
  std::sort(extents.begin(), extents.end(), [](const Extent& a, const Extent& b) {
    return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
  });
  uint64_t expected = 0;
  for (const Extent& extent : extents) {
    LOWBIT_CHECK_KIND(extent.begin == expected, ErrorKind::kCorruptFile, origin, ": tensor \"",
                      *extent.name, "\" begins at ", extent.begin,
                      extent.begin < expected ? ", inside the one before, which ends at "
                                              : " after a hole; the one before ends at ",
                      expected);
    expected = extent.end;
  }
  LOWBIT_CHECK_KIND(expected == buffer_size, ErrorKind::kCorruptFile, origin, ": ",
                    buffer_size - expected, " bytes after the last tensor");
}

// Without needless whitespace; spaces at the end align the data to 8 bytes.
std::string header_text(const std::vector<StoredTensor>& tensors,
                        const std::map<std::string, std::string>& metadata) {
  const auto quoted = [](const std::string& value) { return dump_json(Json(value)); };
  std::ostringstream out;
  const char* comma = "";
  out << '{';
  if (!metadata.empty()) {
    out << "\"__metadata__\":" << dump_json(Json(metadata));
    comma = ",";
  }
  uint64_t offset = 0;
  for (const StoredTensor& tensor : tensors) {
    const uint64_t end = offset + tensor.bytes.size;
    out << comma << quoted(tensor.name) << ":{\"dtype\":" << quoted(tensor.dtype)
        << ",\"shape\":" << dump_json(Json(tensor.shape)) << ",\"data_offsets\":[" << offset << ','
        << end << "]}";
    comma = ",";
    offset = end;
  }
  out << '}';
  std::string text = out.str();
  text.resize((text.size() + 7) / 8 * 8, ' ');
  return text;
}

}  // namespace

int safetensors_bits(const std::string& dtype) {
  const int rank = dtype_rank(dtype);
  return rank < 0 ? 0 : kDtypes[rank].bits;
}

SafetensorsHeader parse_safetensors(std::span<const uint8_t> file, const std::string& origin) {
  const auto corrupt = [&](const auto&... parts) {
    fail(ErrorKind::kCorruptFile, origin, ": ", parts...);
  };
  if (file.size() < 8) corrupt("only ", file.size(), " bytes, not a safetensors file");
  uint64_t length = 0;
  std::memcpy(&length, file.data(), 8);
  if (length > limits::kSafetensorsHeaderBytes) {
    corrupt("header of ", length, " bytes, the limit is ", limits::kSafetensorsHeaderBytes,
            "; not a safetensors file?");
  }
  if (length > file.size() - 8) {
    corrupt("header of ", length, " bytes in a file of ", file.size(),
            "; the file is truncated, fetch it again");
  }
  const std::string_view text(reinterpret_cast<const char*>(file.data()) + 8, length);
  if (text.empty() || text.front() != '{') corrupt("the header does not begin with '{'");
  SafetensorsHeader header;
  HeaderReader reader(&header, origin);
  Json::sax_parse(text, &reader);
  check_extents(&header, 8 + length, file.size() - 8 - length, origin);
  return header;
}

SafetensorsFile::SafetensorsFile(const fs::path& path)
    : file_(std::make_shared<MappedFile>(path)),
      header_(parse_safetensors(file_->bytes(), path.string())) {
  file_->check();
}

StoredTensor SafetensorsFile::tensor(const std::string& name) const {
  const auto it = header_.tensors.find(name);
  LOWBIT_CHECK_KIND(it != header_.tensors.end(), ErrorKind::kCorruptFile, file_->path().string(),
                    ": no tensor \"", name, "\"");
  const SafetensorsHeader::Entry& entry = it->second;
  return {name, entry.dtype, entry.shape,
          Bytes::view(file_, file_->data() + entry.begin, entry.end - entry.begin)};
}

void write_safetensors(const fs::path& path, std::vector<StoredTensor> tensors,
                       const std::map<std::string, std::string>& metadata) {
  std::sort(tensors.begin(), tensors.end(), [](const StoredTensor& a, const StoredTensor& b) {
    const int ranks[2] = {dtype_rank(a.dtype), dtype_rank(b.dtype)};
    return ranks[0] != ranks[1] ? ranks[0] > ranks[1] : a.name < b.name;
  });
  std::set<std::string> names;
  for (const StoredTensor& tensor : tensors) {
    uint64_t bytes = 0;
    LOWBIT_CHECK(tensor_bytes(tensor.dtype, tensor.shape, &bytes) && bytes == tensor.bytes.size,
                 "cannot write ", path.string(), ": tensor \"", tensor.name, "\" has ",
                 tensor.bytes.size, " bytes for ", tensor.dtype, " of shape ",
                 shape_text(tensor.shape));
    LOWBIT_CHECK(names.insert(tensor.name).second, "cannot write ", path.string(), ": tensor \"",
                 tensor.name, "\" is given twice");
  }
  const std::string header = header_text(tensors, metadata);
  const uint64_t length = header.size();
  FileWriter writer(path);
  writer.write(std::span(reinterpret_cast<const uint8_t*>(&length), sizeof(length)));
  writer.write(header);
  for (const StoredTensor& tensor : tensors) {
    writer.write(std::span(tensor.bytes.data, tensor.bytes.size));
  }
  writer.close();
}

}  // namespace lowbit
