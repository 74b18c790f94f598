// Where the hub is and how to speak to it: huggingface_hub's environment variables.
#pragma once

#include <string>

namespace lowbit::hub {

struct HubSettings {
  std::string endpoint = "https://huggingface.co";  // no slash at the end
  std::string token;                                // "": none
  std::string cache;                                // the folder that holds models--*
  bool offline = false;
};

// From HF_ENDPOINT, HF_TOKEN, HUGGING_FACE_HUB_TOKEN, HF_TOKEN_PATH, HF_HOME, HF_HUB_CACHE,
// HF_HUB_OFFLINE and what else names the cache (checkpoint/hub_cache.h). Throws kInvalidArgument
// if one of them cannot be meant so, or none says where the cache is.
HubSettings settings_from_environment();

// Throws kInvalidArgument unless it could stand in a header.
void check_token(const std::string& token);

}  // namespace lowbit::hub
