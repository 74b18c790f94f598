#include "lowbit/checkpoint/torch_pickle.h"

#include <memory>
#include <utility>

#include "lowbit/base/check.h"
#include "lowbit/base/limits.h"

namespace lowbit {

namespace {

constexpr int kDepth = 16;  // of tuples in tuples: a dictionary of tensors has four

// What the stack holds. Values are immutable and shared, but for dictionaries.
struct Value {
  enum class Kind { kMark, kNone, kBool, kInt, kString, kTuple, kDict, kGlobal, kStorage, kTensor };
  using Pointer = std::shared_ptr<Value>;

  Kind kind = Kind::kNone;
  int depth = 0;
  int64_t number = 0;          // kBool, kInt
  std::string text;            // kString; kGlobal: "module name"; kStorage: its key
  std::vector<Pointer> items;  // kTuple
  PickledTensor tensor;        // kTensor; kStorage: its dtype
  std::map<std::string, PickledTensor> tensors;  // kDict
};
using Kind = Value::Kind;
using Pointer = Value::Pointer;

const char* dtype_of(const std::string& storage) {
  if (storage == "torch FloatStorage") return "F32";
  if (storage == "torch HalfStorage") return "F16";
  if (storage == "torch BFloat16Storage") return "BF16";
  return nullptr;
}

class Interpreter {
 public:
  Interpreter(std::span<const uint8_t> bytes, const std::string& origin)
      : bytes_(bytes), origin_(origin) {}

  std::map<std::string, PickledTensor> run() {
    for (;;) {
      at_ = next_;
      const uint8_t code = take(1)[0];
      if (code == '.') break;
      step(code);
    }
    const Pointer result = pop();
    expect(result->kind == Kind::kDict && stack_.empty(), "does not hold a dictionary");
    return std::move(result->tensors);
  }

 private:
  void expect(bool condition, const char* problem) const {
    LOWBIT_CHECK_KIND(condition, ErrorKind::kCorruptFile, origin_, ": its pickle ", problem,
                      " (byte ", at_, ")");
  }

  std::span<const uint8_t> take(size_t count) {
    expect(count <= bytes_.size() - next_, "ends too early");
    const auto part = bytes_.subspan(next_, count);
    next_ += count;
    return part;
  }
  uint32_t take_number(size_t count) {
    uint32_t number = 0;
    const auto part = take(count);
    for (size_t i = 0; i < count; ++i) number |= static_cast<uint32_t>(part[i]) << (8 * i);
    return number;
  }
  std::string take_line() {
    std::string line;
    for (uint8_t byte; (byte = take(1)[0]) != '\n';) {
      expect(line.size() < limits::kTensorNameBytes, "has a name that is too long");
      line += static_cast<char>(byte);
    }
    return line;
  }

  Pointer make(Kind kind) const {
    auto value = std::make_shared<Value>();
    value->kind = kind;
    return value;
  }
  void push(Pointer value) { stack_.push_back(std::move(value)); }
  void push_number(Kind kind, int64_t number) {
    Pointer value = make(kind);
    value->number = number;
    push(std::move(value));
  }
  void push_text(Kind kind, std::string text) {
    Pointer value = make(kind);
    value->text = std::move(text);
    push(std::move(value));
  }
  void push_tuple(std::vector<Pointer> items) {
    Pointer value = make(Kind::kTuple);
    for (const Pointer& item : items) value->depth = std::max(value->depth, item->depth + 1);
    expect(value->depth <= kDepth, "nests too deep");
    value->items = std::move(items);
    push(std::move(value));
  }

  Pointer pop() {
    expect(!stack_.empty(), "takes from an empty stack");
    Pointer value = std::move(stack_.back());
    stack_.pop_back();
    return value;
  }
  std::vector<Pointer> pop_values(size_t count) {
    expect(stack_.size() >= count, "takes from an empty stack");
    std::vector<Pointer> values(stack_.end() - static_cast<int64_t>(count), stack_.end());
    stack_.resize(stack_.size() - count);
    for (const Pointer& value : values) expect(value->kind != Kind::kMark, "misses a mark");
    return values;
  }
  std::vector<Pointer> pop_to_mark() {
    size_t count = 0;
    while (count < stack_.size() && stack_[stack_.size() - 1 - count]->kind != Kind::kMark) ++count;
    expect(count < stack_.size(), "misses a mark");
    std::vector<Pointer> values = pop_values(count);
    stack_.pop_back();
    return values;
  }

  void step(uint8_t code) {
    switch (code) {
      case 0x80:
        LOWBIT_CHECK_KIND(take_number(1) <= 2, ErrorKind::kUnsupported, origin_,
                          ": lowbit reads pickle protocol 2, which torch.save() writes");
        return;
      case '(':
        return push(make(Kind::kMark));
      case '}':
        return push(make(Kind::kDict));
      case 'N':
        return push(make(Kind::kNone));
      case 0x88:
      case 0x89:
        return push_number(Kind::kBool, code == 0x88);
      case 'K':
        return push_number(Kind::kInt, take_number(1));
      case 'M':
        return push_number(Kind::kInt, take_number(2));
      case 'J':
        return push_number(Kind::kInt, static_cast<int32_t>(take_number(4)));
      case 'X': {
        const uint32_t size = take_number(4);
        expect(size <= limits::kTensorNameBytes, "has a name that is too long");
        const auto text = take(size);
        return push_text(Kind::kString, std::string(text.begin(), text.end()));
      }
      case ')':
        return push_tuple({});
      case 't':
        return push_tuple(pop_to_mark());
      case 0x85:
      case 0x86:
      case 0x87:
        return push_tuple(pop_values(static_cast<size_t>(code - 0x84)));
      default:
        return step_named(code);
    }
  }

  void step_named(uint8_t code) {
    switch (code) {
      case 'q':
      case 'r': {
        const uint32_t index = take_number(code == 'q' ? 1 : 4);
        expect(!stack_.empty() && stack_.back()->kind != Kind::kMark, "keeps what is not there");
        memo_[index] = stack_.back();
        return;
      }
      case 'h':
      case 'j': {
        const auto it = memo_.find(take_number(code == 'h' ? 1 : 4));
        expect(it != memo_.end(), "asks for what it has not kept");
        return push(it->second);
      }
      case 'c': {
        const std::string module = take_line();
        return push_global(module + " " + take_line());
      }
      case 'Q':
        return push_storage(pop());
      case 'R': {
        const Pointer arguments = pop(), function = pop();
        return call(*function, *arguments);
      }
      case 's':
      case 'u': {
        const std::vector<Pointer> pairs = code == 's' ? pop_values(2) : pop_to_mark();
        return set_items(pairs);
      }
      default:
        fail(ErrorKind::kUnsupported, origin_, ": its pickle has instruction ",
             static_cast<int>(code), " (byte ", at_,
             "), which a dictionary of tensors does not need; lowbit does not run it");
    }
  }

  void push_global(const std::string& name) {
    const bool known = name == "torch._utils _rebuild_tensor_v2" ||
                       name == "collections OrderedDict" || dtype_of(name) != nullptr;
    LOWBIT_CHECK_KIND(known, ErrorKind::kUnsupported, origin_, ": its pickle names \"", name,
                      "\", which a dictionary of tensors does not need; lowbit does not load it");
    push_text(Kind::kGlobal, name);
  }

  // ("storage", type, key, place, elements)
  void push_storage(const Pointer& id) {
    expect(id->kind == Kind::kTuple && id->items.size() == 5 &&
               id->items[0]->kind == Kind::kString && id->items[0]->text == "storage" &&
               id->items[1]->kind == Kind::kGlobal && id->items[2]->kind == Kind::kString,
           "has a storage that is none");
    const char* dtype = dtype_of(id->items[1]->text);
    expect(dtype != nullptr, "has a storage without a type");
    Pointer storage = make(Kind::kStorage);
    storage->text = id->items[2]->text;
    storage->tensor.dtype = dtype;
    push(std::move(storage));
  }

  void call(const Value& function, const Value& arguments) {
    expect(function.kind == Kind::kGlobal && arguments.kind == Kind::kTuple,
           "calls what it cannot");
    if (function.text == "collections OrderedDict") {
      expect(arguments.items.empty(), "fills a dictionary in an unknown way");
      return push(make(Kind::kDict));
    }
    expect(function.text == "torch._utils _rebuild_tensor_v2", "calls what it cannot");
    // (storage, offset, shape, strides, requires_grad, hooks)
    const std::vector<Pointer>& items = arguments.items;
    expect(items.size() >= 4 && items[0]->kind == Kind::kStorage && items[1]->kind == Kind::kInt,
           "has a tensor that is none");
    Pointer value = make(Kind::kTensor);
    PickledTensor& tensor = value->tensor;
    tensor.dtype = items[0]->tensor.dtype;
    tensor.storage = items[0]->text;
    tensor.offset = items[1]->number;
    tensor.shape = numbers(*items[2]);
    const std::vector<int64_t> strides = numbers(*items[3]);
    expect(tensor.offset >= 0 && strides.size() == tensor.shape.size() &&
               tensor.shape.size() <= limits::kTensorRank,
           "has a tensor that is none");
    int64_t stride = 1;
    for (size_t i = strides.size(); i-- > 0; stride *= tensor.shape[i]) {
      expect(tensor.shape[i] >= 0 && tensor.shape[i] <= limits::kVocabSize &&
                 stride <= limits::kVocabSize,
             "has a tensor of an impossible shape");
      LOWBIT_CHECK_KIND(strides[i] == stride || tensor.shape[i] == 1, ErrorKind::kUnsupported,
                        origin_, ": a tensor is not contiguous; save it with .contiguous()");
    }
    push(std::move(value));
  }

  std::vector<int64_t> numbers(const Value& tuple) const {
    expect(tuple.kind == Kind::kTuple, "has a tensor without a shape");
    std::vector<int64_t> numbers;
    for (const Pointer& item : tuple.items) {
      expect(item->kind == Kind::kInt, "has a tensor without a shape");
      numbers.push_back(item->number);
    }
    return numbers;
  }

  void set_items(const std::vector<Pointer>& pairs) {
    expect(pairs.size() % 2 == 0 && !stack_.empty() && stack_.back()->kind == Kind::kDict,
           "fills what is no dictionary");
    for (size_t i = 0; i < pairs.size(); i += 2) {
      LOWBIT_CHECK_KIND(pairs[i]->kind == Kind::kString && pairs[i + 1]->kind == Kind::kTensor,
                        ErrorKind::kUnsupported, origin_,
                        ": expected a dictionary of names and tensors");
      stack_.back()->tensors[pairs[i]->text] = pairs[i + 1]->tensor;
    }
  }

  std::span<const uint8_t> bytes_;
  const std::string& origin_;
  size_t at_ = 0, next_ = 0;
  std::vector<Pointer> stack_;
  std::map<uint32_t, Pointer> memo_;
};

}  // namespace

std::map<std::string, PickledTensor> parse_torch_pickle(std::span<const uint8_t> pickle,
                                                        const std::string& origin) {
  return Interpreter(pickle, origin).run();
}

}  // namespace lowbit
