export { PerspectiveCamera, Scene, WebGLRenderer, Color, SRGBColorSpace } from "three";
export { OrbitControls } from "three/addons/controls/OrbitControls.js";
export { SparkRenderer, SplatMesh } from "@sparkjsdev/spark";
