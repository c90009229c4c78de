// The interface of assay.h for C++17: values that free themselves, and exceptions.
//
//   assay::Model model("model", 4);
//   std::vector<assay::Tensor> outputs = model.run({{pixels.data(), "float32", {1, 3, 224, 224}}});
//   const float *scores = static_cast<const float *>(outputs[0].data);
#ifndef ASSAY_HPP_
#define ASSAY_HPP_

#include <algorithm>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "assay.h"

namespace assay {

// A dense row-major tensor; dtypes as in assay.h. Memory belongs to whoever made it.
struct Tensor {
  void *data = nullptr;
  std::string dtype;
  std::vector<int64_t> shape;
};

class Model {
 public:
  // The model in a folder; threads: 0 for one on each CPU. Throws std::runtime_error.
  explicit Model(const std::string &folder, int threads = 0)
      : model_(checked(assay_open(folder.c_str(), threads)), assay_close) {}

  std::vector<std::string> input_names() const {
    std::vector<std::string> names;
    for (int i = 0; i < assay_input_count(model_.get()); ++i) names.emplace_back(assay_input_name(model_.get(), i));
    return names;
  }

  std::vector<std::string> output_names() const {
    std::vector<std::string> names;
    for (int i = 0; i < assay_output_count(model_.get()); ++i) names.emplace_back(assay_output_name(model_.get(), i));
    return names;
  }

  // Outputs, in order; their memory is the model's until its next run. Throws std::runtime_error.
  std::vector<Tensor> run(const std::vector<Tensor> &inputs) {
    if (inputs.size() != static_cast<size_t>(assay_input_count(model_.get())))
      throw std::runtime_error("The model takes " + std::to_string(assay_input_count(model_.get())) + " inputs.");
    std::vector<assay_tensor> given(inputs.size()), results(static_cast<size_t>(assay_output_count(model_.get())));
    for (size_t i = 0; i < inputs.size(); ++i) {
      if (inputs[i].shape.size() > ASSAY_MAX_RANK) throw std::runtime_error("An input has too many dimensions.");
      given[i].data = inputs[i].data;
      given[i].dtype = inputs[i].dtype.c_str();
      given[i].rank = static_cast<int32_t>(inputs[i].shape.size());
      std::copy(inputs[i].shape.begin(), inputs[i].shape.end(), given[i].shape);
    }
    if (assay_run(model_.get(), given.data(), results.data()) != 0) throw std::runtime_error(assay_error());
    std::vector<Tensor> outputs;
    for (const assay_tensor &each : results)
      outputs.push_back({each.data, each.dtype, std::vector<int64_t>(each.shape, each.shape + each.rank)});
    return outputs;
  }

 private:
  static assay_model *checked(assay_model *model) {
    if (model == nullptr) throw std::runtime_error(assay_error());
    return model;
  }
  std::unique_ptr<assay_model, decltype(&assay_close)> model_;
};

}  // namespace assay

#endif
