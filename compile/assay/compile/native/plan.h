// A launch plan (docs/launch-plan.md): bound to the shapes of inputs, and run.
#ifndef ASSAY_PLAN_H_
#define ASSAY_PLAN_H_

#include "backend.h"
#include "json.h"
#include "library.h"

namespace assay {

// Bytes of one element, or 0 for a dtype that is not known.
size_t item_bytes(const char *dtype);

struct Shape {
  static constexpr int kMost = 16;
  int rank = 0;
  int64_t sizes[kMost] = {};
};

// Where memory of a plan lies.
struct Span {
  char *data = nullptr;
  int64_t bytes = 0;
};

class Plan {
 public:
  ~Plan();

  // Reads `path` and finds its kernels in `library`. `weights` are in the order of the plan, and stay.
  bool open(const char *path, const Library &library, const Array<Span> &weights);

  size_t input_count() const { return inputs_.size(); }
  size_t output_count() const { return outputs_.size(); }
  bool writes_input(size_t index) const;

  // Evaluates everything that depends on the shapes of the inputs, unless they are those of the last call.
  bool bind(const Shape *shapes);

  // Runs all steps; `inputs` are the addresses of what was bound.
  bool run(char *const *inputs);

  // An output after a run.
  const Tensor &output(size_t index) const { return tensors_[static_cast<size_t>(outputs_[index])]; }

 private:
  enum class Place { kStorage, kInput, kWeight };
  struct Source {
    Place place;
    size_t index;
    int64_t offset;
    size_t item;
    const Json *offset_expression, *shape;
    int64_t *sizes;  // shape, then strides
  };
  struct Symbol {
    const char *name;
    size_t input, axis;
    int64_t value;
  };
  struct Kernel {
    const char *name;
    Function function;
  };
  struct Step {
    size_t kernel, first, count;
  };

  bool read(const Json &plan);
  bool read_tensors(const Json &tensors);
  bool read_steps(const Json &steps);
  bool read_numbers(const Json *list, size_t limit, Array<int64_t> &numbers);
  bool evaluate(const Json &expression, int64_t &value, int depth = 0) const;
  bool bind_symbols(const Shape *shapes);
  bool bind_tensors();
  Span span(const Source &source) const;

  File file_;
  JsonDocument document_;
  Array<Span> weights_;
  Array<Span> input_spans_;
  Array<Symbol> symbols_;
  Array<const Json *> storage_sizes_;
  Array<Memory *> storages_;
  Array<int64_t> storage_bytes_;
  Array<Source> sources_;
  Array<Tensor> tensors_;
  Array<int64_t> inputs_, weight_tensors_, outputs_, written_;
  Array<Kernel> kernels_;
  Array<Step> steps_;
  Array<const Json *> arguments_;
  Array<Value> values_;
  bool bound_ = false;
};

}  // namespace assay

#endif
