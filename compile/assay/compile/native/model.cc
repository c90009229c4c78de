// The functions of assay.h: an artifact is opened, its level chosen, and its plan run.
#include "assay.h"

#include "cpu.h"
#include "plan.h"
#include "sha256.h"

using namespace assay;

struct assay_model {
  struct Interface {
    const char *name, *dtype;
    const Json *shape;
  };

  bool open(const char *folder, int32_t threads);
  bool run(const assay_tensor *inputs, assay_tensor *outputs);
  ~assay_model() { stop_threads(threads_); }

  Array<Interface> inputs, outputs;
  Plan plan;

 private:
  bool read_interface(const Json &manifest, const char *list, Array<Interface> &items);
  bool check_file(const char *name, const char *data, size_t size) const;
  bool open_weights(const char *folder, const Json &entry, const Json &manifest);
  const Json *choose_level(const Json &manifest) const;

  File manifest_file_, weights_file_;
  JsonDocument manifest_document_, weights_document_;
  const Json *manifest_ = nullptr;
  Array<Span> weights_;
  Array<Memory *> copies_;  // of weights and inputs that are not aligned
  Library library_;
  Threads *threads_ = nullptr;

};

namespace {

bool aligned(const void *data) { return reinterpret_cast<uintptr_t>(data) % kAlignment == 0; }

// Whether the artifact's triple, such as aarch64-linux-gnu, is of the machine that this runs on.
bool fits_machine(const char *triple) {
  const char *machine = machine_name();
  const size_t length = strlen(machine);
  const bool same = strncmp(triple, machine, length) == 0 && triple[length] == '-';
  const bool arm64 = strcmp(machine, "aarch64") == 0 && strncmp(triple, "arm64-", 6) == 0;
  return (same || arm64) && strstr(triple, system_name()) != nullptr;
}

const char *missing_feature(const Json &target) {
  const Json *features = target.member("features");
  for (const Json *each = features == nullptr ? nullptr : features->first; each != nullptr; each = each->next)
    if (each->kind == Kind::kText && !cpu_has(each->text)) return each->text;
  return nullptr;
}

}  // namespace

// The last level that this machine can run: they are ordered from plain to capable. The environment variable
// ASSAY_LEVEL forces another, as it does in Python.
const Json *assay_model::choose_level(const Json &manifest) const {
  const char *forced = getenv("ASSAY_LEVEL");
  if (forced != nullptr && *forced == 0) forced = nullptr;
  const Json *levels = manifest.member("levels"), *chosen = nullptr;
  const char *missing = nullptr;
  bool machine = false;
  for (const Json *each = levels == nullptr ? nullptr : levels->first; each != nullptr; each = each->next) {
    const Json *target = each->member("target");
    if (target == nullptr || !fits_machine(target->text_of("triple"))) continue;
    if (forced != nullptr && strcmp(forced, target->text_of("name")) != 0) continue;
    machine = true;
    const char *lacking = missing_feature(*target);
    if (lacking == nullptr)
      chosen = each;
    else
      missing = lacking;
  }
  if (chosen == nullptr && machine)
    fail("This CPU lacks %s, which the artifact needs.", missing);
  else if (chosen == nullptr && forced != nullptr)
    fail("The artifact has no level %s for this machine, which ASSAY_LEVEL asks for.", forced);
  else if (chosen == nullptr)
    fail("The artifact is for another machine than %s with %s.", machine_name(), system_name());
  return chosen;
}

bool assay_model::read_interface(const Json &manifest, const char *list, Array<Interface> &items) {
  const Json *found = manifest.member(list);
  for (const Json *each = found == nullptr ? nullptr : found->first; each != nullptr; each = each->next) {
    const Interface item = {each->text_of("name"), each->text_of("dtype"), each->member("shape")};
    if (item_bytes(item.dtype) == 0 || item.shape == nullptr || item.shape->count > ASSAY_MAX_RANK)
      return fail("%s %s has a dtype or shape that this runtime does not take.", list, item.name);
    items.push(item);
  }
  return true;
}

bool assay_model::check_file(const char *name, const char *data, size_t size) const {
  const Json *files = manifest_->member("files");
  const Json *file = files == nullptr ? nullptr : files->member(name);
  if (file == nullptr) return fail("The manifest does not list %s.", name);
  char digest[65];
  sha256(data, size, digest);
  return strcmp(digest, file->text_of("sha256")) == 0 || fail("%s is damaged: its digest differs.", name);
}

// Safetensors: the length of a JSON header, the header, the tensors.
bool assay_model::open_weights(const char *folder, const Json &entry, const Json &manifest) {
  const Json *names = entry.member("weights"), *described = manifest.member("weights");
  if (names == nullptr || names->count == 0) return true;
  const Path path(folder, "weights.safetensors");
  if (described == nullptr || !weights_file_.open(path.text())) return false;
  const char *data = weights_file_.data();
  uint64_t length = 0;
  if (weights_file_.size() < sizeof length) return fail("%s is damaged.", path.text());
  memcpy(&length, data, sizeof length);
  if (length > weights_file_.size() - sizeof length) return fail("%s is damaged.", path.text());
  const Json *header = weights_document_.parse(data + sizeof length, length, path.text());
  if (header == nullptr) return false;
  char *start = weights_file_.data() + sizeof length + length;
  const int64_t room = static_cast<int64_t>(weights_file_.size() - sizeof length - length);
  for (const Json *name = names->first; name != nullptr; name = name->next) {
    const Json *tensor = name->kind == Kind::kText ? header->member(name->text) : nullptr;
    const Json *offsets = tensor == nullptr ? nullptr : tensor->member("data_offsets");
    if (offsets == nullptr || offsets->count != 2) return fail("%s has not all weights.", path.text());
    const int64_t first = offsets->first->number, end = offsets->first->next->number;
    if (first < 0 || first > end || end > room) return fail("%s is damaged.", path.text());
    Span span = {start + first, end - first};
    if (!aligned(span.data)) {
      Memory *copy = construct(static_cast<Memory *>(checked(malloc(sizeof(Memory)))));
      memcpy(copy->room(static_cast<size_t>(span.bytes)), span.data, static_cast<size_t>(span.bytes));
      span.data = copy->data();
      copies_.push(copy);
    }
    weights_.push(span);
  }
  return true;
}

bool assay_model::open(const char *folder, int32_t threads) {
  const Path inside(folder, "model");
  const Path direct(folder, "manifest.json");
  if (!file_exists(direct.text())) folder = inside.text();
  const Path path(folder, "manifest.json");
  if (!manifest_file_.open(path.text())) return false;
  manifest_ = manifest_document_.parse(manifest_file_.data(), manifest_file_.size(), path.text());
  if (manifest_ == nullptr) return false;
  const Json *version = manifest_->member("schema_version");
  if (version == nullptr || version->number != 3) return fail("The manifest has a schema that is not known here.");
  const Json *level = choose_level(*manifest_);
  if (level == nullptr) return false;
  const Json *entry = level->member("entry");
  if (entry == nullptr || strcmp(entry->text_of("driver"), "plan-cpu") != 0)
    return fail("The artifact's code needs TVM's virtual machine, which this runtime is not.");
  if (!read_interface(*manifest_, "inputs", inputs) || !read_interface(*manifest_, "outputs", outputs)) return false;
  const char *names[] = {entry->text_of("library"), entry->text_of("plan")};
  for (const char *name : names) {
    File file;
    if (!file.open(Path(folder, name).text()) || !check_file(name, file.data(), file.size())) return false;
  }
  if (!library_.load(Path(folder, names[0]).text()) || !open_weights(folder, *entry, *manifest_)) return false;
  if (!plan.open(Path(folder, names[1]).text(), library_, weights_)) return false;
  if (plan.input_count() != inputs.size() || plan.output_count() != outputs.size())
    return fail("The launch plan does not fit the manifest.");
  threads_ = start_threads(threads);
  return true;
}

bool assay_model::run(const assay_tensor *given, assay_tensor *results) {
  Array<Shape> shapes;
  Array<char *> addresses;
  Array<Memory *> copies;
  bool good = true;
  for (size_t i = 0; good && i < inputs.size(); ++i) {
    const assay_tensor &each = given[i];
    if (each.dtype == nullptr || strcmp(each.dtype, inputs[i].dtype) != 0)
      good = fail("Input %s takes %s, not %s.", inputs[i].name, inputs[i].dtype, each.dtype ? each.dtype : "nothing");
    else if (each.rank < 0 || each.rank > ASSAY_MAX_RANK)
      good = fail("Input %s has too many dimensions.", inputs[i].name);
    if (!good) break;
    Shape shape;
    shape.rank = each.rank;
    size_t bytes = item_bytes(each.dtype);
    for (int axis = 0; axis < each.rank; ++axis) {
      shape.sizes[axis] = each.shape[axis];
      bytes *= static_cast<size_t>(each.shape[axis]);
    }
    shapes.push(shape);
    char *data = static_cast<char *>(each.data);
    if (!aligned(data)) {
      if (plan.writes_input(i)) {
        good = fail("Input %s is written, and must be %zu-byte aligned.", inputs[i].name, kAlignment);
        break;
      }
      Memory *copy = construct(static_cast<Memory *>(checked(malloc(sizeof(Memory)))));
      memcpy(copy->room(bytes), data, bytes);
      data = copy->data();
      copies.push(copy);
    }
    addresses.push(data);
  }
  if (good && plan.bind(shapes.begin())) {
    const UseThreads use(threads_);
    good = plan.run(addresses.begin());
  } else {
    good = false;
  }
  for (size_t i = 0; good && i < outputs.size(); ++i) {
    const Tensor &tensor = plan.output(i);
    assay_tensor result = {};
    result.data = tensor.data;
    result.dtype = outputs[i].dtype;
    result.rank = tensor.rank;
    for (int axis = 0; axis < tensor.rank && axis < ASSAY_MAX_RANK; ++axis) result.shape[axis] = tensor.shape[axis];
    results[i] = result;
  }
  // An output may be an input that is passed on: copies of inputs live until the next run.
  for (Memory *each : copies_) {
    bool weight = false;
    for (const Span &span : weights_) weight = weight || span.data == each->data();
    if (weight) {
      copies.push(each);
    } else {
      each->~Memory();
      free(each);
    }
  }
  copies_.clear();
  for (Memory *each : copies) copies_.push(each);
  return good;
}

extern "C" {

const char *assay_error(void) { return last_error(); }

assay_model *assay_open(const char *folder, int32_t threads) {
  assay_model *model = construct(static_cast<assay_model *>(checked(malloc(sizeof(assay_model)))));
  if (model->open(folder, threads)) return model;
  assay_close(model);
  return nullptr;
}

void assay_close(assay_model *model) {
  if (model == nullptr) return;
  model->~assay_model();
  free(model);
}

int32_t assay_input_count(const assay_model *model) { return static_cast<int32_t>(model->inputs.size()); }

int32_t assay_output_count(const assay_model *model) { return static_cast<int32_t>(model->outputs.size()); }

const char *assay_input_name(const assay_model *model, int32_t index) {
  return index >= 0 && index < assay_input_count(model) ? model->inputs[static_cast<size_t>(index)].name : nullptr;
}

const char *assay_input_dtype(const assay_model *model, int32_t index) {
  return index >= 0 && index < assay_input_count(model) ? model->inputs[static_cast<size_t>(index)].dtype : nullptr;
}

int32_t assay_input_shape(const assay_model *model, int32_t index, int64_t *shape) {
  if (index < 0 || index >= assay_input_count(model)) {
    fail("There is no input %d.", index);
    return -1;
  }
  const Json *sizes = model->inputs[static_cast<size_t>(index)].shape;
  int32_t rank = 0;
  for (const Json *each = sizes->first; each != nullptr; each = each->next)
    shape[rank++] = each->kind == Kind::kInteger ? each->number : -1;
  return rank;
}

const char *assay_output_name(const assay_model *model, int32_t index) {
  return index >= 0 && index < assay_output_count(model) ? model->outputs[static_cast<size_t>(index)].name : nullptr;
}

int32_t assay_input_is_written(const assay_model *model, int32_t index) {
  return index >= 0 && model->plan.writes_input(static_cast<size_t>(index));
}

int32_t assay_run(assay_model *model, const assay_tensor *inputs, assay_tensor *outputs) {
  return model->run(inputs, outputs) ? 0 : -1;
}

}  // extern "C"
