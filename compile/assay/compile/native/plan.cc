#include "plan.h"

namespace assay {

namespace {

constexpr int64_t kLargest = static_cast<int64_t>(1) << 62;
constexpr int kDeepest = 64;

bool damaged(const char *what) { return fail("The launch plan is damaged: %s.", what); }

bool index_of(const Json *value, size_t limit, size_t &index) {
  if (value == nullptr || value->kind != Kind::kInteger || value->number < 0) return false;
  index = static_cast<size_t>(value->number);
  return index < limit;
}

int64_t floor_divided(int64_t a, int64_t b) { return a / b - ((a % b != 0 && (a < 0) != (b < 0)) ? 1 : 0); }

struct DType {
  const char *name;
  uint8_t code, bits;  // DLDataTypeCode
};
const DType kDTypes[] = {
    {"bool", 6, 8},    {"int8", 0, 8},     {"uint8", 1, 8},    {"int16", 0, 16},   {"uint16", 1, 16},
    {"int32", 0, 32},  {"uint32", 1, 32},  {"int64", 0, 64},   {"uint64", 1, 64},  {"float16", 2, 16},
    {"float32", 2, 32}, {"float64", 2, 64}, {"bfloat16", 4, 16},
};

const DType *dtype_named(const char *name) {
  for (const DType &each : kDTypes)
    if (strcmp(each.name, name) == 0) return &each;
  return nullptr;
}

}  // namespace

size_t item_bytes(const char *dtype) {
  const DType *found = dtype_named(dtype);
  return found == nullptr ? 0 : found->bits / 8;
}

Plan::~Plan() {
  for (Source &each : sources_) free(each.sizes);
  for (Memory *each : storages_) {
    each->~Memory();
    free(each);
  }
}

bool Plan::open(const char *path, const Library &library, const Array<Span> &weights) {
  if (!file_.open(path)) return false;
  const Json *plan = document_.parse(file_.data(), file_.size(), path);
  if (plan == nullptr) return false;
  for (const Span &each : weights) weights_.push(each);
  if (!read(*plan)) return false;
  for (Kernel &each : kernels_) {
    char name[1100];
    snprintf(name, sizeof name, "__tvm_ffi_%s", each.name);
    each.function = reinterpret_cast<Function>(library.symbol(name));
    if (each.function == nullptr) return fail("The library has no kernel %s.", each.name);
  }
  return true;
}

bool Plan::read(const Json &plan) {
  const Json *version = plan.member("schema_version");
  if (version == nullptr || version->number != 1) return fail("The launch plan has a schema that is not known here.");
  if (strcmp(plan.text_of("flavour"), "cpu") != 0) return fail("The launch plan is not for a CPU.");
  const char *const lists[] = {"symbols", "storages", "tensors", "inputs", "weights", "outputs", "kernels", "steps"};
  for (const char *name : lists) {
    const Json *list = plan.member(name);
    if (list == nullptr || list->kind != Kind::kArray) return damaged(name);
  }
  for (const Json *each = plan.member("storages")->first; each != nullptr; each = each->next) {
    if (each->member("bytes") == nullptr) return damaged("a storage has no size");
    storage_sizes_.push(each->member("bytes"));
    storages_.push(construct(static_cast<Memory *>(checked(malloc(sizeof(Memory))))));
  }
  input_spans_.fill(plan.member("inputs")->count, Span());
  if (plan.member("weights")->count != weights_.size()) return damaged("it takes other weights than the artifact has");
  const size_t tensors = plan.member("tensors")->count;
  if (!read_tensors(*plan.member("tensors")) || !read_numbers(plan.member("inputs"), tensors, inputs_) ||
      !read_numbers(plan.member("weights"), tensors, weight_tensors_) ||
      !read_numbers(plan.member("outputs"), tensors, outputs_) ||
      !read_numbers(plan.member("written_inputs"), inputs_.size(), written_))
    return false;
  for (const Json *each = plan.member("symbols")->first; each != nullptr; each = each->next) {
    Symbol symbol = {each->text_of("name"), 0, 0, 0};
    if (!index_of(each->member("input"), inputs_.size(), symbol.input) ||
        !index_of(each->member("axis"), sources_[static_cast<size_t>(inputs_[symbol.input])].shape->count, symbol.axis))
      return damaged("a symbol is of a dimension that is not there");
    symbols_.push(symbol);
  }
  for (const Json *each = plan.member("kernels")->first; each != nullptr; each = each->next)
    kernels_.push(Kernel{each->text_of("name"), nullptr});
  return read_steps(*plan.member("steps"));
}

bool Plan::read_tensors(const Json &tensors) {
  for (const Json *each = tensors.first; each != nullptr; each = each->next) {
    Source source = {};
    const char *place = each->text_of("place");
    const bool storage = strcmp(place, "storage") == 0, input = strcmp(place, "input") == 0;
    if (!storage && !input && strcmp(place, "weight") != 0) return damaged("a tensor lies nowhere");
    source.place = storage ? Place::kStorage : input ? Place::kInput : Place::kWeight;
    const size_t limit = storage ? storages_.size() : input ? input_spans_.size() : weights_.size();
    if (!index_of(each->member("index"), limit, source.index)) return damaged("a tensor lies nowhere");
    source.offset_expression = each->member("offset");
    source.shape = each->member("shape");
    const DType *dtype = dtype_named(each->text_of("dtype"));
    if (dtype == nullptr || source.shape == nullptr || source.shape->kind != Kind::kArray ||
        source.shape->count > Shape::kMost)
      return damaged("a tensor has no dtype, or no shape");
    source.item = dtype->bits / 8;
    const size_t rank = source.shape->count;
    source.sizes = static_cast<int64_t *>(checked(malloc((2 * rank + 1) * sizeof(int64_t))));
    sources_.push(source);
    Tensor tensor = {};
    tensor.device_type = kCpu;
    tensor.rank = static_cast<int32_t>(rank);
    tensor.code = dtype->code;
    tensor.bits = dtype->bits;
    tensor.lanes = 1;
    tensor.shape = source.sizes;
    tensor.strides = source.sizes + rank;
    tensors_.push(tensor);
  }
  return true;
}

bool Plan::read_steps(const Json &steps) {
  for (const Json *each = steps.first; each != nullptr; each = each->next) {
    const Json *arguments = each->member("arguments");
    Step step = {0, arguments_.size(), 0};
    if (!index_of(each->member("kernel"), kernels_.size(), step.kernel) || arguments == nullptr)
      return damaged("a step runs a kernel that is not there");
    for (const Json *argument = arguments->first; argument != nullptr; argument = argument->next) {
      size_t number = 0;
      const bool scalar = argument->kind == Kind::kArray && argument->count == 2;
      if (!scalar && !index_of(argument, tensors_.size(), number)) return damaged("a step takes what is not there");
      arguments_.push(argument);
    }
    step.count = arguments->count;
    steps_.push(step);
  }
  Value none = {};
  values_.fill(arguments_.size(), none);
  return true;
}

bool Plan::read_numbers(const Json *list, size_t limit, Array<int64_t> &numbers) {
  if (list == nullptr) return true;
  for (const Json *each = list->first; each != nullptr; each = each->next) {
    size_t index = 0;
    if (!index_of(each, limit, index)) return damaged("it refers to what is not there");
    numbers.push(static_cast<int64_t>(index));
  }
  return true;
}

bool Plan::writes_input(size_t index) const {
  for (int64_t each : written_)
    if (static_cast<size_t>(each) == index) return true;
  return false;
}

bool Plan::evaluate(const Json &expression, int64_t &value, int depth) const {
  if (depth > kDeepest) return damaged("an expression is nested too deeply");
  if (expression.kind == Kind::kInteger) {
    value = expression.number;
    return true;
  }
  if (expression.kind == Kind::kText) {
    for (const Symbol &each : symbols_)
      if (strcmp(each.name, expression.text) == 0) {
        value = each.value;
        return true;
      }
    return damaged("an expression has a symbol that is not there");
  }
  const Json *name = expression.kind == Kind::kArray ? expression.first : nullptr;
  const size_t wanted = name != nullptr && name->is("select") ? 4 : 3;
  if (name == nullptr || name->kind != Kind::kText || expression.count != wanted)
    return damaged("an expression is none");
  const Json *operand = name->next;
  int64_t a = 0, b = 0;
  if (!evaluate(*operand, a, depth + 1)) return false;
  if (wanted == 4) return evaluate(a != 0 ? *operand->next : *operand->next->next, value, depth + 1);
  if (!evaluate(*operand->next, b, depth + 1)) return false;
  bool over = false;
  if (name->is("+"))
    over = __builtin_add_overflow(a, b, &value);
  else if (name->is("-"))
    over = __builtin_sub_overflow(a, b, &value);
  else if (name->is("*"))
    over = __builtin_mul_overflow(a, b, &value);
  else if (name->is("min"))
    value = a < b ? a : b;
  else if (name->is("max"))
    value = a > b ? a : b;
  else if (name->is("<"))
    value = a < b;
  else if (name->is("<="))
    value = a <= b;
  else if (name->is("=="))
    value = a == b;
  else if (name->is("!="))
    value = a != b;
  else if (!name->is("//") && !name->is("%"))
    return damaged("an expression has an operator that is not known");
  else if (b == 0)
    return damaged("a size is divided by zero");
  else
    value = name->is("//") ? floor_divided(a, b) : a - floor_divided(a, b) * b;
  if (over || value > kLargest || value < -kLargest) return damaged("a size is beyond 64 bits");
  return true;
}

bool Plan::bind_symbols(const Shape *shapes) {
  for (Symbol &each : symbols_) {
    const Shape &shape = shapes[each.input];
    if (each.axis >= static_cast<size_t>(shape.rank)) return fail("Input %zu has too few dimensions.", each.input);
    if (bound_ && each.value != shape.sizes[each.axis]) bound_ = false;
    each.value = shape.sizes[each.axis];
  }
  return true;
}

bool Plan::bind(const Shape *shapes) {
  if (!bind_symbols(shapes)) return false;
  if (!bound_) {
    storage_bytes_.clear();
    for (size_t i = 0; i < storages_.size(); ++i) {
      int64_t bytes = 0;
      if (!evaluate(*storage_sizes_[i], bytes)) return false;
      if (bytes < 0) return damaged("a storage has a negative size");
      storage_bytes_.push(bytes);
      storages_[i]->room(static_cast<size_t>(bytes));
    }
    if (!bind_tensors()) return false;
    for (size_t i = 0; i < arguments_.size(); ++i) {
      const Json &argument = *arguments_[i];
      const bool scalar = argument.kind == Kind::kArray;
      int64_t value = 0;
      if (scalar && !evaluate(*argument.first->next, value)) return false;
      const int64_t address =
          scalar ? 0 : static_cast<int64_t>(reinterpret_cast<intptr_t>(&tensors_[static_cast<size_t>(argument.number)]));
      values_[i] = Value{scalar ? kInt : kTensor, 0, scalar ? value : address};
    }
  }
  for (size_t i = 0; i < inputs_.size(); ++i) {
    const Tensor &expected = tensors_[static_cast<size_t>(inputs_[i])];
    bool same = shapes[i].rank == expected.rank;
    for (int axis = 0; same && axis < expected.rank; ++axis) same = shapes[i].sizes[axis] == expected.shape[axis];
    if (!same) return fail("Input %zu has a shape that does not fit the model, or the other inputs.", i);
  }
  bound_ = true;
  return true;
}

bool Plan::bind_tensors() {
  for (Span &each : input_spans_) each.bytes = 0;
  for (size_t i = 0; i < sources_.size(); ++i) {
    Source &source = sources_[i];
    int64_t elements = 1;
    const Json *dim = source.shape->first;
    const int rank = tensors_[i].rank;
    for (int axis = 0; axis < rank; ++axis, dim = dim->next) {
      if (!evaluate(*dim, source.sizes[axis])) return false;
      if (source.sizes[axis] < 0) return damaged("a tensor has a negative size");
    }
    for (int axis = rank - 1; axis >= 0; --axis) {
      source.sizes[rank + axis] = elements;
      if (__builtin_mul_overflow(elements, source.sizes[axis], &elements) || elements > kLargest / 16)
        return damaged("a tensor is too large");
    }
    source.offset = 0;
    if (source.offset_expression != nullptr && !evaluate(*source.offset_expression, source.offset)) return false;
    const int64_t bytes = elements * static_cast<int64_t>(source.item);
    if (source.place == Place::kInput && source.offset == 0 && inputs_[source.index] == static_cast<int64_t>(i))
      input_spans_[source.index].bytes = bytes;
    const int64_t room = source.place == Place::kStorage ? storage_bytes_[source.index]
                         : source.place == Place::kInput ? input_spans_[source.index].bytes
                                                         : weights_[source.index].bytes;
    if (source.offset < 0 || source.offset > room || bytes > room - source.offset)
      return damaged("a tensor reaches beyond its memory");
  }
  return true;
}

Span Plan::span(const Source &source) const {
  switch (source.place) {
    case Place::kStorage:
      return Span{storages_[source.index]->data(), storage_bytes_[source.index]};
    case Place::kInput:
      return input_spans_[source.index];
    default:
      return weights_[source.index];
  }
}

bool Plan::run(char *const *inputs) {
  for (size_t i = 0; i < inputs_.size(); ++i) input_spans_[i].data = inputs[i];
  for (size_t i = 0; i < sources_.size(); ++i) tensors_[i].data = span(sources_[i]).data + sources_[i].offset;
  Value result = {};
  for (const Step &step : steps_) {
    const Kernel &kernel = kernels_[step.kernel];
    if (kernel.function(nullptr, step.count == 0 ? nullptr : &values_[step.first], static_cast<int32_t>(step.count), &result) != 0)
      return fail("The kernel %s failed: %s", kernel.name, raised_error());
  }
  return true;
}

}  // namespace assay
