{
  # CMakeLists.txt is the one build description; this hands over to it, for `node-gyp rebuild`.
  "targets": [
    {
      "target_name": "minisequence",
      "type": "none",
      "actions": [
        {
          "action_name": "cmake",
          "inputs": ["CMakeLists.txt"],
          "outputs": ["build/Release/minisequence.node"],
          "action": ["node", "scripts/build.mjs", "--native"]
        }
      ]
    }
  ]
}
