#include "measured_model.h"

#include "lowbit/base/check.h"

namespace lowbit::app {

namespace {

// Checkpoints called "w4a16" and the like keep the head in 8 bits or more.
std::string head_format_of(const MeasuredModel& measured) {
  if (!measured.head_format.empty()) return measured.head_format;
  return measured.format.find("a16") != std::string::npos ? "w8_g128" : measured.format;
}

}  // namespace

void MeasuredModel::add_to(CLI::App& command) {
  auto* source = command.add_option_group("model");
  auto* shape =
      source->add_option("--shape", random.shape, "Random weights in the shape of a known model")
          ->check(CLI::IsMember(random_model_shapes()));
  source
      ->add_option("-m,--model", model,
                   "Model: a folder, a .gguf file, or ORG/NAME in the Hugging Face cache")
      ->type_name("MODEL");
  source->require_option(1);
  command.add_flag("--random-weights", random_weights, "Says so; --shape has no others")
      ->needs(shape);
  command.add_option("--format", format, "Format of the random weights (q4_0, q4_1, awq, ...)")
      ->check(CLI::IsMember(format_names()))
      ->needs(shape)
      ->capture_default_str();
  command
      .add_option("--head-format", head_format,
                  "Format of embedding and head (as --format; w8_g128 for w4a16 and the like)")
      ->check(CLI::IsMember(format_names()))
      ->needs(shape);
  command.add_option("--layers", random.layers, "Layers of it (0: all)")
      ->check(CLI::Range(0, 1000))
      ->needs(shape)
      ->capture_default_str();
}

std::unique_ptr<Checkpoint> MeasuredModel::open() {
  if (!model.empty()) return open_checkpoint(model);
  random.format = format_by_name(format);
  random.head = format_by_name(head_format_of(*this));
  model = concat(random.shape, " ", format);
  return make_random_model(random);
}

}  // namespace lowbit::app
