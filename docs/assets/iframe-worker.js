// Browsers start no worker from a file of the disk. There the search's worker runs in a hidden frame instead.
if (location.protocol === "file:") {
  window.IFrameWorker = window.Worker = class extends EventTarget {
    constructor(address) {
      super()
      const element = document.createElement("iframe")
      element.hidden = true
      document.body.append(element)
      this.frame = element.contentWindow
      this.frame.postMessage = data => this.dispatchEvent(new MessageEvent("message", { data }))
      this.frame.importScripts = (...addresses) => Promise.all(addresses.map(each => this.load(each)))
      this.ready = this.load(address)
    }

    load(address) {
      const script = this.frame.document.createElement("script")
      script.src = address
      script.async = false
      this.frame.document.head.append(script)
      return new Promise((resolve, reject) => Object.assign(script, { onload: resolve, onerror: reject }))
    }

    postMessage(data) {
      this.ready.then(() => this.frame.dispatchEvent(new MessageEvent("message", { data })))
    }
  }
}
